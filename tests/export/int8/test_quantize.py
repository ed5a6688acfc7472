"""What the runtimes make of INT8 graphs: which layers they compute in integers, and what they move."""

from collections import Counter

import onnx
import onnxruntime as ort
from int8_model import SIZE_HW

from salema.export.graph.rewrite import CROPPED_LAST
from salema.export.int8.quantize import SCHEMES, layers_of, leaving, quantize
from salema.runtime.backends.openvino_session import ov


def test_onnx_runtime_computes_all_but_the_map_in_integers_and_moves_no_planes(int8, tmp_path):
    assert int8(for_="onnxruntime").spec.rewrites == (CROPPED_LAST,)
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 3
    ort.InferenceSession(str(int8(for_="onnxruntime").paths[0]), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert kinds["QLinearConv"] == 26
    assert kinds["Conv"] + kinds["FusedConv"] == 1
    assert kinds["NhwcMaxPool"] == 4
    assert not kinds.keys() & {"QLinearConcat", "Concat", "Split", "MaxPool"}
    assert kinds["Transpose"] <= 4 + 4  # one for each upsampling; into and out of the average, and out at the end


def test_openvino_pools_integers(int8):
    model = ov.Core().compile_model(str(int8(for_="openvino").paths[0]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    facts = [node.get_rt_info() for node in model.get_runtime_model().get_ops()]
    pools = [fact for fact in facts if fact["layerType"] == "Pooling"]
    assert len(pools) == 4
    assert {fact["runtimePrecision"] for fact in pools} <= {"u8", "i8"}
    assert not [fact for fact in facts if fact["layerType"] == "FakeQuantize"]


def test_the_averaged_layer_is_rounded_but_not_the_map_or_inputs_of_float_layers(exported):
    proto = onnx.load(exported(imgsz_hw=SIZE_HW) / "model.onnx")
    layers = layers_of(proto)
    ranges = dict.fromkeys([*layers, *map(leaving, [*layers][:-1])], (-1.0, 1.0))
    quantized = quantize(proto, ranges, SCHEMES["onnxruntime"], 8, ("salgan.56",))
    readers = {name: node.op_type for node in quantized.graph.node for name in node.input}
    rounded = {layer for layer, node in layers.items() if readers.get(node.output[0]) == "QuantizeLinear"}
    assert set(layers) - rounded == {"salgan.53", "salgan.56", "salgan.60"}
