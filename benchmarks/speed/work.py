"""The work of a model per step: operations and bytes of each layer, read from its ONNX file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from salema.runtime.errors import MissingDependencyError, reason

if TYPE_CHECKING:
    import onnx

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


@dataclass(frozen=True)
class LayerWork:
    """One convolution: its operations, two per multiplication, and the elements of its input, weights and output."""

    name: str
    operations: int
    elements: int


@dataclass(frozen=True)
class Work:
    """All convolutions of one step. The rest adds less than 1 % and is fused into them, or could be."""

    layers: tuple[LayerWork, ...]

    @property
    def operations(self) -> int:
        """Operations of one step."""
        return sum(layer.operations for layer in self.layers)

    def bytes_in(self, precision: str) -> int:
        """Returns the bytes moved if every layer reads and writes memory once, in a precision."""
        return sum(layer.elements for layer in self.layers) * _BYTES[precision]

    def ideal_ms(self, precision: str, operations_per_s: float, bytes_per_s: float) -> float:
        """Returns the sum over layers of the longer of computing and memory time.

        No kernels that do all of these multiplications, and keep nothing in caches between layers, are faster;
        Winograd's do fewer.
        """
        each = _BYTES[precision]
        return 1e3 * sum(
            max(layer.operations / operations_per_s, layer.elements * each / bytes_per_s) for layer in self.layers
        )


def count_work(models: Sequence[Path], batch: int) -> Work:
    """Counts the work of one step of a model, whole or in parts.

    Args:
        models: its ONNX files.
        batch: streams per step.

    Raises:
        MissingDependencyError: the onnx package is not installed.
    """
    try:
        import onnx  # noqa: PLC0415 - a machine that only runs models has none
    except ImportError as error:
        raise MissingDependencyError(f"{reason(error)}; install it with: pip install 'salema[export]'") from error
    layers: list[LayerWork] = []
    for path in models:
        model = onnx.load(path)
        for value in model.graph.input:
            first = value.type.tensor_type.shape.dim[0]
            if not first.HasField("dim_value"):
                first.dim_value = batch
        del model.graph.value_info[:]  # inferred for a free batch
        layers += _layers(onnx.shape_inference.infer_shapes(model, data_prop=True).graph)
    return Work(tuple(layers))


def _layers(graph: onnx.GraphProto) -> list[LayerWork]:
    values = [*graph.value_info, *graph.input, *graph.output]
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    layers = []
    for node in graph.node:
        if node.op_type not in _CONVOLUTIONS:
            continue
        source, weight, output = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
        # Each element of a convolution's output, and of a transposed one's input, meets all taps of one slice.
        places = output if node.op_type == "Conv" else source
        operations = 2 * places[0] * math.prod(places[2:]) * math.prod(weight)
        elements = math.prod(source) + math.prod(weight) + math.prod(output)
        layers.append(LayerWork(node.name, operations, elements))
    return layers
