import json

import pytest

from salema.runtime.errors import BackendError
from salema.runtime.inspector import check_precision, convolution_precisions


def layer(name, kind="CaskConvolution", dtype="Half", weights=None, tactic="sm80_xmma_fprop", **more):
    """A layer as TensorRT 10 writes it."""
    record = {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{"Name": "x", "Location": "Device", "Dimensions": [1, 64, 8, 8], "Format/Datatype": dtype}],
        "Outputs": [{"Name": "y", "Location": "Device", "Dimensions": [1, 64, 8, 8], "Format/Datatype": dtype}],
        "TacticName": tactic,
    }
    return record | ({"Weights": {"Type": weights, "Count": 36864}} if weights else {}) | more


def text(*layers):
    return json.dumps({"Layers": list(layers), "Bindings": ["frame", "saliency"]})


@pytest.mark.parametrize(
    ("record", "precision"),
    [
        (layer("a"), "fp16"),
        (layer("a", dtype="Float"), "fp32"),
        (layer("a", dtype="Row major linear FP16 format"), "fp16"),
        (layer("a", dtype="Row major linear FP32 format (kLINEAR)"), "fp32"),
        (layer("a", dtype="Thirty-two wide channel vectorized row major Int8 format"), "int8"),
        (layer("a", dtype="BFloat16"), "bf16"),
        (layer("a", dtype="Float", tactic="sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32"), "tf32"),
        (layer("a", dtype="Float", weights="Half"), "fp16"),  # the weights tell more than the input
        (layer("a", dtype="something new"), "unknown"),
        (layer("a", kind="CaskGemmConvolution"), "fp16"),
        (layer("a", kind="kgen", ParameterType="Convolution"), "fp16"),
        (layer("a", kind="gemm", tactic="t", Metadata="[ONNX Layer: node_conv2d_3]"), "fp16"),
    ],
)
def test_precision_of_a_convolution(record, precision):
    assert convolution_precisions(text(record)) == {"a": precision}


def test_a_tensorrt_11_layer_whose_type_stands_apart():
    record = layer("a")
    record["Inputs"] = [{"Name": "x", "Dimensions": [1, 64, 8, 8], "Format": "kLINEAR", "DataType": "Half"}]
    assert convolution_precisions(text(record)) == {"a": "fp16"}


def test_names_and_copies_are_no_evidence():
    named = layer("conv_in_half", kind="kgen", tactic="pointwise")
    copy = layer("Reformatting CopyNode for conv1", kind="Reformat", tactic="conv_reformat")
    assert convolution_precisions(text(named, copy)) == {}
    tricky = layer("a", dtype="Float")
    tricky["Inputs"][0]["Name"] = "Half"
    assert convolution_precisions(text(tricky)) == {"a": "fp32"}


@pytest.mark.parametrize("nothing", ["", "no json", "[]", "{}", '{"Layers": ["conv1", "conv2"]}', text()])
def test_an_inspector_that_shows_nothing_is_an_error(nothing):
    with pytest.raises(BackendError, match=r"model\.engine: TensorRT's inspector shows no convolution"):
        check_precision(nothing, "fp16", "model.engine")


def test_convolutions_in_another_precision_are_an_error():
    good = [layer(f"c{index}") for index in range(3)]
    assert check_precision(text(*good), "fp16", "m") == 3
    bad = [layer(f"d{index}", dtype="Float") for index in range(5)]
    with pytest.raises(BackendError, match="5 of 8 convolutions don't run in fp16: d0 in fp32, .* and 2 more; export"):
        check_precision(text(*good, *bad), "fp16", "m")
    with pytest.raises(BackendError, match="1 of 1 convolutions don't run in fp32: a in tf32"):
        check_precision(text(layer("a", dtype="Float", tactic="tf32")), "fp32", "m")
