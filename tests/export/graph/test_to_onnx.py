import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, numpy_helper

from salema.export.graph.to_onnx import name_outputs
from salema.export.weights.seeded import seeded_state_dict
from salema.runtime.backends.ncnn_form import FORM_KEY
from salema.runtime.spec import METADATA_KEY, ModelSpec

VARIANTS = {
    "SalGAN": ({"arch": "salgan"}, ["frame"], ["saliency"]),
    "SalEMA30": ({}, ["frame", "ema30_in", "mix"], ["saliency", "ema30_out"]),
    "SalEMA30+54": (
        {"ema_locs": (30, 54)},
        ["frame", "ema30_in", "ema54_in", "mix"],
        ["saliency", "ema30_out", "ema54_out"],
    ),
    "SalCLSTM56": (
        {"arch": "salclstm56"},
        ["frame", "hidden_in", "cell_in"],
        ["saliency", "hidden_out", "cell_out"],
    ),
}


def read(folder):
    return onnx.load(folder / "model.onnx")


def types(values):
    return {
        v.name: (v.type.tensor_type.elem_type, [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim])
        for v in values
    }


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_graph_keeps_the_contract(exported, name, precision):
    options, inputs, outputs = VARIANTS[name]
    proto = read(exported(precision=precision, **options))
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version >= 17
    assert [value.name for value in proto.graph.input] == inputs
    assert [value.name for value in proto.graph.output] == outputs
    kinds = types([*proto.graph.input, *proto.graph.output])
    assert kinds["frame"] == (TensorProto.UINT8, [1, 64, 96, 3])
    assert kinds["saliency"] == (TensorProto.FLOAT, [1, 1, 64, 96])
    assert all(kind == TensorProto.FLOAT for key, (kind, _) in kinds.items() if key != "frame")
    if name == "SalEMA30":
        assert kinds["ema30_in"] == kinds["ema30_out"] == (TensorProto.FLOAT, [1, 32, 4, 6])
        assert kinds["mix"] == (TensorProto.FLOAT, [1])


@pytest.mark.parametrize("name", VARIANTS)
def test_fp16_means_weights_and_compute(exported, name):
    proto = read(exported(precision="fp16", **VARIANTS[name][0]))
    weights = {i.name: i.data_type for i in proto.graph.initializer if i.name.endswith((".weight", ".bias"))}
    assert len(weights) >= 54
    assert set(weights.values()) == {TensorProto.FLOAT16}
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    produced = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    convolutions = [node for node in proto.graph.node if node.op_type in {"Conv", "Resize", "MaxPool"}]
    assert {produced[node.output[0]] for node in convolutions} == {TensorProto.FLOAT16}


@pytest.mark.parametrize("bias", [0.0, 0.1])
def test_each_convolution_has_a_bias_of_its_own_though_all_are_equal(exported, tmp_path, bias):
    """The exporter leaves zeros out, which a network has that was not trained, and keeps one of equal ones."""
    weights = {key: torch.from_numpy(array) for key, array in seeded_state_dict("salema", 16, 0).items()}
    weights |= {key: torch.full_like(tensor, bias) for key, tensor in weights.items() if key.endswith("bias")}
    torch.save({"state_dict": weights}, tmp_path / "equal.pt")
    graph = read(exported(str(tmp_path / "equal.pt"))).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert [node.input[2] for node in convolutions] == [key for key in weights if key.endswith("bias")]
    for node in convolutions:
        assert tensors[node.input[2]].tolist() == pytest.approx([bias] * len(tensors[node.input[1]]))


def test_metadata_names_the_facts_and_no_folder_of_this_machine(exported):
    folder = exported()
    proto = read(folder)
    assert [entry.key for entry in proto.metadata_props] == [METADATA_KEY, FORM_KEY]
    spec = ModelSpec.from_json(proto.metadata_props[0].value, "x")
    assert (spec.architecture, spec.coefficient, spec.coefficient_source) == (
        "SalEMA30",
        0.1,
        "the default 0.1, used directly",
    )
    assert (spec.trained, spec.weights, len(spec.weights_sha256)) == (False, "seeded:16", 64)
    assert b".py" not in (folder / "model.onnx").read_bytes()


def test_operators_are_those_of_the_design(exported):
    proto = read(exported())
    used = {node.op_type for node in proto.graph.node}
    ema = {"Unsqueeze", "Equal", "Where", "Sub", "Mul", "Add"}
    network = {"Cast", "Transpose", "Sub", "Conv", "Relu", "MaxPool", "Resize", "Sigmoid", "Reshape"}
    assert used <= ema | network
    order = [node.op_type for node in proto.graph.node]
    assert order.index("Cast") < order.index("Transpose")  # TensorRT has no uint8 transpose
    scales = {i.name: numpy_helper.to_array(i).tolist() for i in proto.graph.initializer}
    resizes = [node for node in proto.graph.node if node.op_type == "Resize"]
    assert [scales[node.input[2]] for node in resizes] == [[1.0, 1.0, 2.0, 2.0]] * 4


def test_a_dynamic_batch_runs_at_any_size(exported):
    folder = exported(batch=None)
    kinds = types(read(folder).graph.input)
    assert kinds["frame"][1] == kinds["mix"][1] + [64, 96, 3]
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    state = rng.standard_normal((3, 32, 4, 6)).astype(np.float32)
    mix = np.float32([1, 0.1, 0.7])
    whole = session.run(None, {"frame": frames, "ema30_in": state, "mix": mix})
    for row in range(3):
        one = slice(row, row + 1)
        single = session.run(None, {"frame": frames[one], "ema30_in": state[one], "mix": mix[one]})
        for a, b in zip(single, whole, strict=True):
            np.testing.assert_allclose(a[0], b[row], atol=1e-5)


def test_every_layer_of_a_graph_for_several_streams_has_their_number(exported):
    """It is traced for one; cropped upsampling reshapes."""
    proto = read(exported(batch=3, for_="onnxruntime"))
    assert "Reshape" in {node.op_type for node in proto.graph.node}
    shapes = types(onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph.value_info)
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
    assert [shapes[node.output[0]][1][0] for node in convolutions] == [3] * 27


def test_outputs_that_are_one_tensor_get_their_names_from_older_exporters_too(exported):
    """Their map is called as the state, and the state as an alias of it."""
    wanted = read(exported(ema_locs=(61,)))
    older = onnx.ModelProto.FromString(wanted.SerializeToString())
    name_outputs(older.graph, ["ema61_out", "ema61_out_alias_1"])
    assert [output.name for output in older.graph.output] == ["ema61_out", "ema61_out_alias_1"]
    assert ort.InferenceSession(older.SerializeToString()).get_outputs()[1].name == "ema61_out_alias_1"
    name_outputs(older.graph, ["saliency", "ema61_out"])
    assert older == wanted
