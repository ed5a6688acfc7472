"""From the PyTorch step to the model's form for ncnn: its layers as text. The weights are those of the ONNX file.

We write them ourselves, because pnnx (20261020) turns our graph's uint8 cast and select into layers that ncnn lacks.
Inputs and outputs have the names of the ONNX graph, with three differences: there is one stream; `frame` is float32
planes `[3, H, W]` of BGR values 0 to 255; and a `mix` of 1 does not clear a NaN: start with it and a state of zeros.

Source: ncnn's wiki, "param and model file structure" and "operation param weight table".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from typing import NamedTuple

from torch import nn

from salema.export.graph.models import MEAN_BGR, SaliencyStep
from salema.export.int8.quantize import Ranges
from salema.export.weights.architecture import ENCODER_END, FINAL_CONVS, LAYERS
from salema.runtime.backends.ncnn_form import BIAS, CONVOLUTION, LEVELS, NcnnForm
from salema.runtime.spec import ModelSpec

_MAGIC = "7767517"
_IN_INT8 = " 8=1"  # with a scale for each channel of the weights, and one for the input
_ADD, _SUB, _MUL = "0=0", "0=1", "0=2"  # BinaryOp's
_RESIZES = {"Pooling": (1, 2), "Interp": (2, 1)}
# A feature mask without Winograd's method and matrix products: for three input channels plain loops are faster
# (benchmarks/results/ncnn_choices.json: with those a step is 0.91 and 0.94 times as fast).
_DIRECTLY = " 31=96"
_SIMPLE = {
    "R": ("ReLU", ""),
    "M": ("Pooling", "0=0 1=2 2=2 5=1"),
    "U": ("Interp", "0=1 1=2.0 2=2.0"),  # 1.0.20260114 still does not read "2" as a float
    "S": ("Sigmoid", ""),
}


class _Layer(NamedTuple):
    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: str


class Rounding(NamedTuple):
    """How to round to INT8: the range of each convolution's input, by layer, and the layers that stay in float."""

    ranges: Ranges
    kept: Container[str]


class _Graph:
    """Layers in the order they run, the factors that round their inputs, and the sizes of their outputs."""

    def __init__(self, rounding: Rounding | None = None) -> None:
        self._rounding = rounding
        self.layers: list[_Layer] = []
        self.scales: dict[str, float] = {}
        self._sizes_hw: dict[str, tuple[int, int]] = {}

    def input(self, name: str, shape_chw: tuple[int, int, int]) -> str:
        """Adds an input; returns its name."""
        channels, height, width = shape_chw
        self._sizes_hw[name] = height, width
        return self.add("Input", [], f"0={width} 1={height} 2={channels}", name)

    def add(self, kind: str, inputs: Iterable[str], parameters: str = "", name: str = "") -> str:
        """Adds a layer with one output; returns the name of both."""
        name = name or f"{kind.lower()}_{len(self.layers)}"
        layer = _Layer(kind, name, tuple(inputs), (name,), parameters)
        self.layers.append(layer)
        if layer.inputs:
            up, down = _RESIZES.get(kind, (1, 1))
            height, width = self._sizes_hw[layer.inputs[0]]
            self._sizes_hw[name] = height * up // down, width * up // down
        return name

    def conv(self, model: nn.Module, name: str, x: str, *, relu: bool = False) -> str:
        """Adds a convolution of the model, by its key in the checkpoint, and the ReLU after it if asked."""
        conv = model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        out, channels, kernel, _ = conv.weight.shape
        height, width = self._sizes_hw[x]
        parameters = f"0={out} 1={kernel} 4={kernel // 2} 5=1 6={conv.weight.numel()} -23330=4,3,{width},{height},{out}"
        parameters += " 9=1" * relu + _DIRECTLY * (channels == len(MEAN_BGR))
        if self._rounding is not None and name not in self._rounding.kept:
            greatest = max(map(abs, self._rounding.ranges[name]))
            self.scales[name] = LEVELS / (greatest or 1)  # after a dead layer the input is 0
            parameters += _IN_INT8
        return self.add(CONVOLUTION, [x], parameters, name)

    def slice(self, x: str, count: int) -> tuple[str, ...]:
        """Adds a layer that splits the channels into equal parts."""
        names = tuple(f"{x}_{i}" for i in range(count))
        self._sizes_hw |= dict.fromkeys(names, self._sizes_hw[x])
        self.layers.append(_Layer("Slice", f"{x}_slice", (x,), names, f"-23300={count}{',-233' * count} 1=0"))
        return names

    def text(self) -> str:
        """Returns the text of the `.param` file. A blob may have only one reader, so several readers get copies."""
        readers = Counter(blob for layer in self.layers for blob in layer.inputs)
        taken: Counter[str] = Counter()
        lines, blobs = [], 0
        for layer in self.layers:
            inputs = [f"{blob}_copy{taken[blob]}" if readers[blob] > 1 else blob for blob in layer.inputs]
            taken.update(layer.inputs)
            copies = [
                _Layer("Split", f"{blob}_split", (blob,), tuple(f"{blob}_copy{i}" for i in range(readers[blob])), "")
                for blob in layer.outputs
                if readers[blob] > 1
            ]
            for each in (layer._replace(inputs=tuple(inputs)), *copies):
                counts = f"{len(each.inputs)} {len(each.outputs)}"
                lines.append(
                    " ".join([each.kind, each.name, counts, *each.inputs, *each.outputs, each.parameters]).rstrip()
                )
                blobs += len(each.outputs)
        return "\n".join([_MAGIC, f"{len(lines)} {blobs}", *lines, ""])


def ncnn_form(model: SaliencyStep, spec: ModelSpec, rounding: Rounding | None = None) -> NcnnForm:
    """Returns the network's form for ncnn.

    `model` is in float32 and without rewrites, which would keep ncnn from Winograd's method.
    """
    graph = _Graph(rounding)
    frame = graph.input("frame", (len(MEAN_BGR), spec.height, spec.width))
    for state in spec.states:
        graph.input(f"{state.name}_in", state.shape_chw)
    if spec.coefficient is not None:
        graph.add("Input", [], "0=1", "mix")
    centred = graph.add(BIAS, [frame], f"0={len(MEAN_BGR)}")
    kind = model.architecture.kind
    if kind == "salgan":
        outputs = [_layers(graph, model, centred, 0, len(LAYERS))]
    else:
        outputs = (_salema if kind == "salema" else _salclstm)(graph, model, centred)
    for name, blob in zip(spec.output_names, outputs, strict=True):
        graph.add("Split", [blob], name=name)  # a Split with one output renames a blob
    return NcnnForm(graph.text(), {centred: [-value for value in MEAN_BGR]}, graph.scales)


def _layers(graph: _Graph, model: SaliencyStep, x: str, start: int, end: int) -> str:
    """Adds the layers from `start` up to `end`, not included."""
    for index in range(start, end):
        kind, name = LAYERS[index], f"salgan.{index}"
        if kind == "C":
            x = graph.conv(model, name, x, relu=LAYERS[index + 1 : end].startswith("R"))
        elif kind != "R" or LAYERS[index - 1] != "C" or index == start:  # otherwise the convolution has it
            layer, parameters = _SIMPLE[kind]
            x = graph.add(layer, [x], parameters, name)
    return x


def _salema(graph: _Graph, model: SaliencyStep, x: str) -> list[str]:
    """Adds a SalEMA; returns the map, then the states."""
    start, after = 0, []
    for location in model.architecture.ema_locs:
        entered = _layers(graph, model, x, start, location)
        fresh = _layers(graph, model, entered, location, location + 1)
        state = f"ema{location}_in"
        step = graph.add("BinaryOp", [graph.add("BinaryOp", [fresh, state], _SUB), "mix"], _MUL)
        x = graph.add("BinaryOp", [state, step], _ADD)
        if model.architecture.keeps_rectified(location):
            x = graph.add("ReLU", [x])
        after.append(x)
        if model.architecture.residual:
            added = fresh if model.architecture.adds_rectified(location) else entered
            x = graph.add("BinaryOp", [x, added], _ADD)
        start = location + 1 + model.architecture.keeps_rectified(location)
    return [_layers(graph, model, x, start, len(LAYERS)), *after]


def _salclstm(graph: _Graph, model: SaliencyStep, x: str) -> list[str]:
    """Adds a SalCLSTM; returns the map, then the states."""
    wide = model.architecture.kind == "salclstm56"
    place = len(model.salgan) if wide else ENCODER_END
    x = _layers(graph, model, x, 0, place)
    gates = graph.conv(model, "Gates", graph.add("Concat", [x, "hidden_in"], "0=0"))
    *opened, candidate = graph.slice(gates, 4)
    new, forget, out = (graph.add("Sigmoid", [gate]) for gate in opened)
    kept = graph.add("BinaryOp", [forget, "cell_in"], _MUL)
    added = graph.add("BinaryOp", [new, graph.add("TanH", [candidate])], _MUL)
    cell = graph.add("BinaryOp", [kept, added], _ADD)
    hidden = graph.add("BinaryOp", [out, graph.add("TanH", [cell])], _MUL)
    x = graph.add("BinaryOp", [cell, x], _ADD) if model.architecture.residual else cell
    if not wide:
        return [_layers(graph, model, x, place, len(LAYERS)), hidden, cell]
    for index in FINAL_CONVS:
        x = graph.conv(model, f"final_convs.{index}", x, relu=index != FINAL_CONVS[-1])
    return [graph.add("Sigmoid", [x]), hidden, cell]
