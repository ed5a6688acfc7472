"""The work of a model per step: operations and bytes of each layer, read from its ONNX file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from salema.kernels.errors import installed

if TYPE_CHECKING:
    import onnx

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
DIRECT = "direct"


@dataclass(frozen=True)
class LayerWork:
    """One convolution. Operations are two per multiplication.

    Attributes:
        name: of the layer.
        operations: that the graph names: every tap at every place.
        done_operations: the fewest that the method needs: a direct one can skip the padding's zeros.
        elements: of its input, weights and output.
        is_int8: whether the graph has it in INT8.
        method: `direct`, or the form of Winograd's method; None if it isn't known.
        done_in: precision of the products, where it is not the layer's own.
    """

    name: str
    operations: int
    done_operations: int
    elements: int
    is_int8: bool = False
    method: str | None = DIRECT
    done_in: str | None = None


@dataclass(frozen=True)
class Work:
    """All convolutions of one step. The rest adds less than 1 % and is fused into them, or could be."""

    layers: tuple[LayerWork, ...]

    @property
    def operations(self) -> int:
        """Operations of one step, as the graph names them."""
        return sum(layer.operations for layer in self.layers)

    @property
    def done_operations(self) -> int | None:
        """The fewest that the methods need; None if one isn't known."""
        return sum(layer.done_operations for layer in self.layers) if self.is_known else None

    @property
    def is_known(self) -> bool:
        """Whether the method of each layer is known."""
        return all(layer.method for layer in self.layers)

    def bytes_in(self, precision: str) -> int:
        """Returns the bytes moved if every layer reads and writes memory once, in a precision."""
        return sum(layer.elements for layer in self.layers) * _BYTES[precision]

    def ideal_ms(self, precision: str, operations_per_s: float, bytes_per_s: float) -> float:
        """Returns the sum over layers of the longer of computing and memory time, all in one precision.

        It is no limit: kernels may be faster than what the rates were measured with, and caches keep data.
        """
        each = _BYTES[precision]
        return 1e3 * sum(
            max(layer.operations / operations_per_s, layer.elements * each / bytes_per_s) for layer in self.layers
        )


def count_work(models: Sequence[Path], batch: int, method: str | None = DIRECT) -> Work:
    """Counts the work of one step of a model, whole or in parts.

    `method` is that of what runs it: `direct`, or None if that isn't known.

    Raises:
        MissingDependencyError: the onnx package is not installed.
    """
    with installed("pip install 'salema[export]'"):
        import onnx  # noqa: PLC0415 - a machine that only runs models has none
    layers: list[LayerWork] = []
    for path in models:
        model = onnx.load(path)
        for value in model.graph.input:
            first = value.type.tensor_type.shape.dim[0]
            if not first.HasField("dim_value"):
                first.dim_value = batch
        del model.graph.value_info[:]  # of the batch that it was exported for
        layers += _layers(onnx.shape_inference.infer_shapes(model, data_prop=True).graph, method)
    return Work(tuple(layers))


def _layers(graph: onnx.GraphProto, method: str | None) -> list[LayerWork]:
    values = [*graph.value_info, *graph.input, *graph.output]
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    restored = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    layers = []
    for node in graph.node:
        if node.op_type not in _CONVOLUTIONS:
            continue
        source, weight, output = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
        # Each element of a convolution's output, and of a transposed one's input, meets all taps of one slice.
        places, others = (output, source) if node.op_type == "Conv" else (source, output)
        pairs = places[0] * math.prod(weight[:2])
        operations = 2 * pairs * math.prod(places[2:]) * math.prod(weight[2:])
        done = 2 * pairs * math.prod(_taps_inside(node, places[2:], others[2:], weight[2:]))
        elements = math.prod(source) + math.prod(weight) + math.prod(output)
        layers.append(LayerWork(node.name, operations, done, elements, set(node.input[:2]) <= restored, method))
    return layers


def _taps_inside(node: onnx.NodeProto, places: list[int], others: list[int], kernel: list[int]) -> list[int]:
    """Returns, for each axis, the number of pairs of a place and a tap that don't meet padding, or get cut off."""
    given = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    pads, ones = given.get("pads", [0] * 2 * len(kernel)), [1] * len(kernel)
    axes = zip(places, others, kernel, pads, given.get("strides", ones), given.get("dilations", ones), strict=False)
    return [taps_inside(*axis) for axis in axes]


def taps_inside(places: int, size: int, taps: int, pad: int, stride: int = 1, dilation: int = 1) -> int:
    """Returns how many pairs of a place and a tap meet one of `size` elements, and not the padding before or after."""
    return sum(0 <= place * stride - pad + tap * dilation < size for place in range(places) for tap in range(taps))
