"""INT8 by ONNX Runtime's quantiser: explicit Q/DQ around the convolutions; the rest is unchanged.

Sources: ONNX Runtime's "Quantize ONNX Models"; TensorRT's "Explicit Quantization" (INT8 is signed and symmetric there,
biases stay float32).
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import shape_inference
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, create_calibrator
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from salema.export.graph.to_onnx import quiet
from salema.runtime.session import Session

CONVOLUTIONS = ("Conv", "ConvTranspose")
_CARRIERS = {"Relu", "MaxPool", "Resize", "Reshape", "Transpose", "Slice", "Concat"}
"""Operators that move, drop or clip values: they can do the same to INT8 values."""

Ranges = dict[str, tuple[float, float]]
"""Least and greatest value of each convolution's input, by layer; of all outputs but the last, by `leaving(layer)`."""


@dataclass(frozen=True)
class Scheme:
    """How a runtime wants its INT8 graph.

    Attributes:
        unsigned: activations are uint8 with a zero point, which wastes no values below zero after a ReLU; else int8
            around zero.
        weight_bits: to try, in turn. CPUs without VNNI add pairs of products in 16 bits, which overflow unless weights
            have 7 bits; elsewhere 7 bits lose accuracy. A GPU has no such sums.
        carried: Q/DQ also after each convolution, pool and upsampling. ONNX Runtime needs the first to run a
            convolution in INT8 at all, OpenVINO those before pools; TensorRT moves the next convolution's Q there.
        rounds_outputs: Q/DQ also after convolutions that end in an average or in gates (with `carried` only). Without
            them ONNX Runtime computes these in float, and turns their weights into float at every step.
        ends_in_float: whether the first and the last layer always stay in float. In ncnn a step is 1.06 times as fast
            with the first one, of three channels, in float (tried by hand, 2 cores of a Zen 3).
    """

    unsigned: bool
    weight_bits: tuple[int, ...]
    carried: bool
    rounds_outputs: bool = False
    ends_in_float: bool = False


SCHEMES = {
    "any": Scheme(unsigned=False, weight_bits=(8, 7), carried=True),
    "onnxruntime": Scheme(unsigned=True, weight_bits=(8, 7), carried=True, rounds_outputs=True),
    "openvino": Scheme(unsigned=True, weight_bits=(8, 7), carried=True),
    "tensorrt": Scheme(unsigned=False, weight_bits=(8,), carried=False),
    "ncnn": Scheme(unsigned=False, weight_bits=(8,), carried=False, ends_in_float=True),
}
"""By the name in `--for`. All runtimes read `any`: TensorRT reads signed and symmetric INT8 only."""


def layers_of(proto: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Returns the convolutions of a graph, in order, by the published names of their layers: `salgan.30`, `Gates`."""
    convolutions = [node for node in proto.graph.node if node.op_type in CONVOLUTIONS]
    return {_layer(node.input[1]): node for node in convolutions}


def leaving(layer: str) -> str:
    """Returns the key of a layer's output in `Ranges`."""
    return f"{layer} output"


def _layer(weight: str) -> str:
    """Returns a weight's layer; a split model's parts put `step.` before the name, the 2x2 form `conv.` after it."""
    return weight.removeprefix("step.").removesuffix(".weight").removesuffix(".conv")


def calibrate(model: Path, session: Session, runs: Sequence[NDArray[np.uint8]]) -> Ranges:
    """Runs a float model over frames, with its state, and returns the ranges of each convolution's input and output.

    Ranges hold 99.999 % of the values. Only one frame's activations are in memory at a time.

    `model` is the step for one stream, float32, and `session` the same, loaded. Each run is uint8 BGR `[T, H, W, 3]`,
    and begins with an empty state.
    """
    with tempfile.TemporaryDirectory(prefix="salema-") as folder, _without_advice():
        calibrator = create_calibrator(
            model,
            list(CONVOLUTIONS),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.Percentile,  # 99.999 %, its default
        )
        for run in runs:
            for feed in feeds(session, run):
                calibrator.collect_data(_One(feed))
        calibrated = calibrator.compute_data()
    ranges = {name: _ends(data.range_value) for name, data in calibrated.items()}
    layers = layers_of(onnx.load(model))
    entering = {layer: ranges[node.input[0]] for layer, node in layers.items()}
    return entering | {leaving(layer): ranges[node.output[0]] for layer, node in [*layers.items()][:-1]}


def _ends(range_value: Any) -> tuple[float, float]:
    least, greatest = (float(np.asarray(end).item()) for end in range_value)
    return least, greatest


def feeds(session: Session, run: NDArray[np.uint8]) -> Iterator[dict[str, NDArray[Any]]]:
    """Yields the inputs of a one-stream graph for each frame of a run `[T, H, W, 3]`, with the state so far."""
    spec = session.spec
    states = session.from_host({state.name: np.zeros((1, *state.shape_chw), np.float32) for state in spec.states})
    for t, frame in enumerate(run):
        mix = np.full(1, 1 if t == 0 else spec.coefficient or 0, np.float32)
        before = {f"{name}_in": array for name, array in session.to_host(states).items()}
        yield {"frame": frame[None], **before, **({} if spec.coefficient is None else {"mix": mix})}
        _, states = session.step(frame[None], states, mix)


class _One:
    """A `CalibrationDataReader` of one frame."""

    def __init__(self, feed: dict[str, NDArray[Any]]) -> None:
        self._feed: dict[str, NDArray[Any]] | None = feed

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        feed, self._feed = self._feed, None
        return feed


def quantize(
    proto: onnx.ModelProto, ranges: Ranges, scheme: Scheme, weight_bits: int = 8, kept: Container[str] = ()
) -> onnx.ModelProto:
    """Returns a step, or a part of one, with its convolutions in INT8: weights per channel, biases and states float32.

    `ranges` are those of `calibrate`, of the same network with any batch, whole or split. The layers `kept` stay in
    float. `proto`, the float32 graph, is not changed.
    """
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    kept_aside = _free_outputs(model)
    layers = {layer: node for layer, node in layers_of(model).items() if layer not in kept}
    tensors = {name: ranges[layer] for layer, node in layers.items() for name in _carried(model, node, layers, scheme)}
    if scheme.rounds_outputs and scheme.carried:
        tensors |= _leaving(model, layers, ranges)
    with _without_advice():
        quantizer = _quantizer(model, [node.name for node in layers.values()], tensors, scheme, weight_bits)
        for name in tensors:
            quantizer.quantize_activation_tensor(name)
        if layers:
            quantizer.quantize_model()
        quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    _pass_by(quantized, kept_aside)
    _tidy(quantized)
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def _quantizer(
    model: onnx.ModelProto, nodes: list[str], ranges: Ranges, scheme: Scheme, weight_bits: int
) -> QDQQuantizer:
    """Returns ONNX Runtime's quantiser of these convolutions; `ranges` are by tensor."""
    data = {name: TensorData(lowest=np.float32(a), highest=np.float32(b)) for name, (a, b) in ranges.items()}
    return QDQQuantizer(
        shape_inference.infer_shapes(model),
        per_channel=True,
        reduce_range=weight_bits < 8,  # noqa: PLR2004 - ONNX Runtime's name for 7 bits
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8 if scheme.unsigned else QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=nodes,
        nodes_to_exclude=[],
        op_types_to_quantize=list(CONVOLUTIONS),
        extra_options={
            "ActivationSymmetric": not scheme.unsigned,
            "WeightSymmetric": True,
            "QuantizeBias": False,  # TensorRT reads no int32 biases
            "OpTypesToExcludeOutputQuantization": list(CONVOLUTIONS),
        },
    )


def _carried(
    model: onnx.ModelProto, node: onnx.NodeProto, layers: Mapping[str, onnx.NodeProto], scheme: Scheme
) -> list[str]:
    """Names the tensors to quantise before a convolution: its input, and those it is made from, back to the last one.

    All get the range of the input. So rounding twice changes nothing, and rounding before a ReLU loses only values that
    the ReLU sets to zero. A state may be among them; `_pass_by` keeps it unrounded.
    """
    makers = {name: maker for maker in model.graph.node for name in maker.output}
    ours = {id(layer) for layer in layers.values()}
    constants = {weight.name for weight in model.graph.initializer}
    carried, waiting = [node.input[0]], [node.input[0]] * scheme.carried
    while waiting:
        maker = makers.get(waiting.pop())
        if maker is None or maker.op_type not in _CARRIERS:
            continue
        sources = maker.input if maker.op_type == "Concat" else maker.input[:1]
        for name in sources:
            before = makers.get(name)
            if (
                before is not None
                and name not in constants | set(carried)
                and (before.op_type in _CARRIERS or id(before) in ours)
            ):
                carried.append(name)
                waiting.append(name)
    return carried


def _leaving(model: onnx.ModelProto, layers: Mapping[str, onnx.NodeProto], ranges: Ranges) -> Ranges:
    """Returns the ranges, by tensor, of outputs that no carrier reads: those of layers that are averaged, or gates.

    The last layer's is not among them: it becomes the map. If a carrier reads it, the next layer stays in float, to
    which the exact output is due.
    """
    carried = {name for node in model.graph.node if node.op_type in _CARRIERS for name in node.input}
    outputs = {leaving(layer): node.output[0] for layer, node in layers.items()}
    return {name: ranges[key] for key, name in outputs.items() if key in ranges and name not in carried}


def _free_outputs(model: onnx.ModelProto) -> dict[str, str]:
    """Puts an Identity before outputs that the graph also reads; returns the new names of the tensors they copy."""
    graph = model.graph
    read = {name for node in graph.node for name in node.input}
    inner_names = {output.name: f"{output.name}_kept" for output in graph.output if output.name in read}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [inner_names.get(name, name) for name in names]
    for name, inner in inner_names.items():
        graph.node.append(onnx.helper.make_node("Identity", [inner], [name], f"node_{name}"))
    return inner_names


def _pass_by(model: onnx.ModelProto, inner_names: Mapping[str, str]) -> None:
    """Lets outputs copy the tensor before its Q/DQ, which all other readers get: Q/DQ would round a state."""
    for node in model.graph.node:
        for name in node.output:
            if name in inner_names:
                node.input[:] = [inner_names[name]]


def _tidy(model: onnx.ModelProto) -> None:
    """Removes what the quantiser added and nothing uses: inferred shapes and its own operator sets."""
    del model.graph.value_info[:]
    used = {node.domain for node in model.graph.node}
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silences the quantiser's advice to preprocess and to optimise."""
    with quiet(), redirect_stdout(io.StringIO()):
        yield
