import json

import pytest

from salema.runtime.errors import BackendError
from salema.runtime.gpu.engine_inspector import check_precision, convolution_precisions


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


FP16_TACTIC = "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x64x32"
FP32_TACTIC = "sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nhwckrsc_nchw_tilesize64x64x8"
TF32_TACTIC = "sm80_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nchw_tilesize64x64x16"
DYNAMIC = "N/A due to dynamic shapes"


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (layer("a"), {"fp16"}),
        (layer("a", dtype="Float"), {"fp32"}),
        (layer("a", dtype="Row major linear FP16 format"), {"fp16"}),
        (layer("a", dtype="Row major linear FP32 format (kLINEAR)"), {"fp32"}),
        (layer("a", dtype="Thirty-two wide channel vectorized row major Int8 format"), {"int8"}),
        (layer("a", dtype="BFloat16"), {"bf16"}),
        (layer("a", dtype="something new"), set()),
        (layer("a", dtype="UInt8"), set()),
        (layer("a", kind="CaskGemmConvolution"), {"fp16"}),
        (layer("a", kind="kgen", ParameterType="Convolution"), {"fp16"}),
        # The weights are trusted more than the kernel, the kernel more than the inputs.
        (layer("a", dtype=DYNAMIC, weights="Half"), {"fp16"}),
        (layer("a", dtype="Float", weights="Half", tactic=FP16_TACTIC), {"fp16"}),
        (layer("a", dtype="Float", tactic=FP16_TACTIC), {"fp16"}),
        (layer("a", dtype="Float", tactic=FP32_TACTIC), {"fp32"}),
        (layer("a", dtype="Float", tactic=TF32_TACTIC), {"tf32"}),
        (layer("a", dtype="Float", weights="Float", tactic=TF32_TACTIC), {"tf32"}),
        # Myelin and TensorRT-RTX call a convolution so.
        (layer("a", kind="correlation", tactic=FP16_TACTIC), {"fp16"}),
        (layer("a", kind="correlation", dtype=DYNAMIC, tactic=""), set()),
        (layer("a", kind="gemm", tactic="t", Metadata="[ONNX Layer: node_conv2d_3]"), {"fp16"}),
        (layer("a", kind="runtime_fusion", dtype="UInt8", tactic="", Metadata="[ONNX Layer: node_conv2d]"), set()),
    ],
)
def test_a_convolution_shows_its_precision(record, shown):
    assert convolution_precisions(text(record)) == {"a": shown}


def test_a_fusion_may_take_a_float_state_first():
    record = layer("a", kind="fusion", tactic="", Metadata="[ONNX Layer: node_conv2d_13]\x1e[ONNX Layer: node_Where]")
    record["Inputs"].insert(0, {"Name": "ema30_in", "Format/Datatype": "Float"})
    assert convolution_precisions(text(record)) == {"a": {"fp16", "fp32"}}
    assert check_precision(text(record), "fp16", "m", must_show=True) == 1


def test_a_tensorrt_11_layer_names_its_type_in_a_separate_entry():
    record = layer("a")
    record["Inputs"] = [{"Name": "x", "Dimensions": [1, 64, 8, 8], "Format": "kLINEAR", "Datatype": "Half"}]
    assert convolution_precisions(text(record)) == {"a": {"fp16"}}


def test_control_characters_in_strings_are_read():
    raw = text(layer("a", Metadata="one|two")).replace("|", "\x1e")
    assert convolution_precisions(raw) == {"a": {"fp16"}}


def test_names_and_copies_are_no_evidence():
    named = layer("conv_in_half", kind="kgen", tactic="pointwise")
    copy = layer("Reformatting CopyNode for conv1", kind="Reformat", tactic="conv_reformat")
    assert convolution_precisions(text(named, copy)) == {}
    tricky = layer("a", dtype="Float")
    tricky["Inputs"][0]["Name"] = "Half"
    assert convolution_precisions(text(tricky)) == {"a": {"fp32"}}


NOTHING = ["", "no json", "[]", "{}", '{"Layers": ["conv1", "conv2"]}', text(), text(layer("a", dtype=DYNAMIC))]


@pytest.mark.parametrize("nothing", NOTHING)
def test_an_inspector_that_shows_nothing_is_an_error_if_it_must_show(nothing):
    with pytest.raises(BackendError, match=r"model\.engine: TensorRT's inspector does not show the precision"):
        check_precision(nothing, "fp16", "model.engine", must_show=True)
    assert check_precision(nothing, "fp16", "model.engine", must_show=False) == 0


@pytest.mark.parametrize("must_show", [False, True])
def test_convolutions_in_another_precision_are_an_error(must_show):
    good = [layer(f"c{index}") for index in range(3)]
    assert check_precision(text(*good), "fp16", "m", must_show=must_show) == 3
    bad = [layer(f"d{index}", dtype="Float") for index in range(5)]
    with pytest.raises(BackendError, match="5 of 8 convolutions don't run in fp16: d0 in fp32, .* and 2 more; export"):
        check_precision(text(*good, *bad), "fp16", "m", must_show=must_show)
    with pytest.raises(BackendError, match="1 of 1 convolutions don't run in fp32: a in tf32"):
        check_precision(text(layer("a", dtype="Float", tactic=TF32_TACTIC)), "fp32", "m", must_show=must_show)
