import json

import pytest

from salema.runtime.errors import BackendError
from salema.runtime.gpu.engine_inspector import Seen, check_precision, convolution_precisions


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
    assert {name: seen.precisions for name, seen in convolution_precisions(text(record)).items()} == {"a": shown}


def test_a_fusion_may_take_a_float_state_first():
    record = layer("a", kind="fusion", tactic="", Metadata="[ONNX Layer: node_conv2d_13]\x1e[ONNX Layer: node_Where]")
    record["Inputs"].insert(0, {"Name": "ema30_in", "Format/Datatype": "Float"})
    assert convolution_precisions(text(record)) == {"a": Seen({"fp16", "fp32"}, proven=False)}
    assert check_precision(text(record), "fp16", "m") == 1


def test_a_tensorrt_11_layer_names_its_type_in_a_separate_entry():
    record = layer("a")
    record["Inputs"] = [{"Name": "x", "Dimensions": [1, 64, 8, 8], "Format": "kLINEAR", "Datatype": "Half"}]
    assert convolution_precisions(text(record)) == {"a": Seen({"fp16"}, proven=False)}


def test_control_characters_in_strings_are_read():
    raw = text(layer("a", Metadata="one|two")).replace("|", "\x1e")
    assert convolution_precisions(raw) == {"a": Seen({"fp16"}, proven=False)}


def test_names_and_copies_are_no_evidence():
    named = layer("conv_in_half", kind="kgen", tactic="pointwise")
    copy = layer("Reformatting CopyNode for conv1", kind="Reformat", tactic="conv_reformat")
    assert convolution_precisions(text(named, copy)) == {}
    tricky = layer("a", dtype="Float")
    tricky["Inputs"][0]["Name"] = "Half"
    assert convolution_precisions(text(tricky)) == {"a": Seen({"fp32"}, proven=False)}


NOTHING = ["", "no json", "[]", "{}", '{"Layers": ["conv1", "conv2"]}', text(), text(layer("a", dtype=DYNAMIC))]


@pytest.mark.parametrize("nothing", NOTHING)
def test_an_inspector_that_shows_nothing_refuses_nothing(nothing):
    assert check_precision(nothing, "fp16", "model.engine") == 0


@pytest.mark.parametrize("proof", [{"weights": "Float"}, {"tactic": FP32_TACTIC}])
def test_weights_and_kernels_in_another_precision_are_an_error(proof):
    good = [layer(f"c{index}", weights="Half") for index in range(3)]
    assert check_precision(text(*good), "fp16", "m") == 3
    bad = [layer(f"d{index}", **proof) for index in range(5)]
    with pytest.raises(BackendError, match="5 of 8 convolutions don't run in fp16: d0 in fp32, .* and 2 more; export"):
        check_precision(text(*good, *bad), "fp16", "m")
    with pytest.raises(BackendError, match="1 of 1 convolutions don't run in fp32: a in tf32"):
        check_precision(text(layer("a", dtype="Float", tactic=TF32_TACTIC)), "fp32", "m")


def test_inputs_in_another_precision_are_no_proof():
    """A fusion may take a state in float, and cast it itself."""
    records = [layer("a", dtype="Float"), layer("b", dtype="Half")]
    assert check_precision(text(*records), "fp16", "m") == 1


def test_int8_may_leave_as_many_in_float_as_the_model_does():
    records = [layer("a", weights="Int8"), layer("b", weights="Float")]
    assert check_precision(text(*records), "int8", "m", in_float=1) == 1
    with pytest.raises(BackendError, match="1 of 2 convolutions don't run in int8: b in fp32"):
        check_precision(text(*records), "int8", "m")


# The entries of layers that trtexec --exportLayerInfo wrote of real engines (NVIDIA/TensorRT #4020, TensorRT 10; #3583,
# 9.1), less those that nobody reads; the one in FP16 is made after them.
REAL = {
    "int8": {
        "LayerType": "CaskConvolution",
        "Inputs": [
            {
                "Dimensions": [1, 256, 14, 14],
                "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format",
            }
        ],
        "ParameterType": "Convolution",
        "Weights": {"Type": "Int8", "Count": 294912},
        "Bias": {"Type": "Float", "Count": 256},
        "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32_nchw"
        "_vect_c_32_tilesize32x32x64_stage6_warpsize2x1x1_g1_tensor16x8x32_t1r3s3",
        "Metadata": "[ONNX Layer: conv]\x1e[ONNX Layer: batchnorm]\x1e[ONNX Layer: relu]",
    },
    "tf32": {
        "LayerType": "CaskGemmConvolution",
        "Inputs": [{"Format/Datatype": "Channel major FP32 format where channel % 4 == 0"}],
        "ParameterType": "Convolution",
        "Weights": {"Type": "Float", "Count": 65536},
        "Bias": {"Type": "Float", "Count": 512},
        "TacticName": "sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize64x128x16_stage4_warpsize2x2x1_tensor16x8x8",
    },
    "fp16": {
        "LayerType": "CaskConvolution",
        "Inputs": [{"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
        "ParameterType": "Convolution",
        "Weights": {"Type": "Half", "Count": 36864},
        "Bias": {"Type": "Half", "Count": 64},
        "TacticName": "sm80_xmma_fprop_implicit_gemm_indexed_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize128x64x64_stage3"
        "_warpsize2x2x1_g1_tensor16x8x16",
    },
}
AROUND = (
    {
        "Name": "Reformatting CopyNode for Input Tensor 0 to conv",
        "LayerType": "Reformat",
        "Inputs": [{"Name": "data", "Format/Datatype": "Row major linear FP32"}],
        "ParameterType": "Reformat",
        "TacticValue": "0x00000000000003e8",
    },
    {
        "Name": "__myl_CastMulAdd_myl0_0",
        "LayerType": "kgen",
        "Inputs": [{"Name": "frame", "Format/Datatype": "UInt8"}],
        "TacticName": "__myl_CastMulAdd_0x5a2b1f",
        "Metadata": "[ONNX Layer: node_Cast]\x1e[ONNX Layer: node_Mul]",
    },
    {
        "Name": "pool",
        "LayerType": "CaskPooling",
        "ParameterType": "Pooling",
        "TacticName": "sm50_xmma_pooling_fw_4d_FP16FP32NHWC",
    },
)


@pytest.mark.parametrize("precision", REAL)
def test_layers_as_tensorrt_wrote_them(precision):
    dump = text({"Name": "conv", **REAL[precision]}, *AROUND)
    assert convolution_precisions(dump) == {"conv": Seen({precision}, proven=True)}
    assert check_precision(dump, precision, "m") == 1
    with pytest.raises(BackendError, match=f"1 of 1 convolutions don't run in fp32: conv in {precision}"):
        check_precision(dump, "fp32", "m")


def test_an_engine_of_fused_kernels_only_is_neither_shown_nor_refused():
    assert convolution_precisions(text(*AROUND)) == {}
    assert check_precision(text(*AROUND), "fp16", "m") == 0
