"""The exported step as servers want it: `mix` with a shape that Triton takes, or no `mix` at all."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from salema.kernels.errors import installed
from salema.runtime.spec import METADATA_KEY, ModelSpec

with installed("pip install onnx", "--emit: the package onnx"):  # a Jetson that builds engines has none
    import onnx
    from onnx import TensorProto, helper, numpy_helper

_PER_STREAM = "salema_mix"  # `[N]`, what the step itself takes


@dataclass(frozen=True)
class SequencedSpec(ModelSpec):
    """The facts of a graph for Triton's sequence batcher: `mix` is `[N, 1]`."""

    @property
    def tensor_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """See `ModelSpec.tensor_shapes`."""
        shapes = super().tensor_shapes
        return shapes | {"mix": (self.batch, 1)} if "mix" in shapes else shapes


@dataclass(frozen=True)
class LoopedSpec(ModelSpec):
    """The facts of a graph that finds its first frame itself: `started` `[N, 1]` takes the place of `mix`.

    It is one more state, fed back like the others: 0 before the first frame, 1 after it.
    """

    @cached_property
    def plain(self) -> ModelSpec:
        """The facts of the step that it was made of."""
        return ModelSpec(**{field.name: getattr(self, field.name) for field in fields(ModelSpec)})

    @property
    def input_names(self) -> tuple[str, ...]:
        """See `ModelSpec.input_names`."""
        return tuple("started_in" if name == "mix" else name for name in self.plain.input_names)

    @property
    def output_names(self) -> tuple[str, ...]:
        """See `ModelSpec.output_names`."""
        return (*self.plain.output_names, *(("started_out",) if self.coefficient is not None else ()))

    @property
    def tensor_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """See `ModelSpec.tensor_shapes`."""
        shapes = self.plain.tensor_shapes | dict.fromkeys(("started_in", "started_out"), (self.batch, 1))
        return {name: shapes[name] for name in (*self.input_names, *self.output_names)}


def sequenced(model: bytes, spec: ModelSpec) -> tuple[bytes, SequencedSpec]:
    """Makes the graph for Triton's sequence batcher from an exported step with a free batch.

    Triton's backends take control tensors of shape `[N, 1]` only, and know no `reshape` for them
    (onnxruntime_backend 02ffb9e, `ValidateBooleanSequenceControl`; tensorrt_backend 001c9a8,
    `InitializeSequenceControlInputBindings`).
    """
    proto = _opened(model)
    if spec.coefficient is not None:
        mix = _taken_out(proto.graph)
        proto.graph.input.append(helper.make_tensor_value_info("mix", TensorProto.FLOAT, [mix, 1]))
        _put_first(proto.graph, [helper.make_node("Reshape", ["mix", "salema_flat"], [_PER_STREAM])])
    return _closed(proto), SequencedSpec(**_facts(spec))


def looped(model: bytes, spec: ModelSpec) -> tuple[bytes, LoopedSpec]:
    """Makes the graph that needs nothing but frames and its own outputs, all zero before the first frame."""
    proto = _opened(model)
    if spec.coefficient is not None:
        graph, batch = proto.graph, _taken_out(proto.graph)
        graph.input.append(helper.make_tensor_value_info("started_in", TensorProto.FLOAT, [batch, 1]))
        graph.output.append(helper.make_tensor_value_info("started_out", TensorProto.FLOAT, [batch, 1]))
        for name, value in (("salema_zero", 0), ("salema_one", 1), ("salema_coefficient", spec.coefficient)):
            graph.initializer.append(numpy_helper.from_array(np.array([[value]], np.float32), name))
        nodes = [
            helper.make_node("Greater", ["started_in", "salema_zero"], ["salema_started"]),
            helper.make_node("Where", ["salema_started", "salema_coefficient", "salema_one"], ["salema_weight"]),
            helper.make_node("Reshape", ["salema_weight", "salema_flat"], [_PER_STREAM]),
            helper.make_node("Max", ["started_in", "salema_one"], ["started_out"]),
        ]
        _put_first(graph, nodes)
    return _closed(proto), LoopedSpec(**_facts(spec))


def _facts(spec: ModelSpec) -> dict[str, Any]:
    return {field.name: getattr(spec, field.name) for field in fields(ModelSpec)}


def _opened(model: bytes) -> onnx.ModelProto:
    """Reads a step; leaves ncnn's form out, which has `mix` as it was."""
    proto = onnx.load_model_from_string(model)
    kept = [entry for entry in proto.metadata_props if entry.key == METADATA_KEY]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    return proto


def _taken_out(graph: onnx.GraphProto) -> str:
    """Takes the input `mix` out; what read it reads `_PER_STREAM`. Returns the name of the batch's dimension."""
    (mix,) = (value for value in graph.input if value.name == "mix")
    graph.input.remove(mix)
    for node in graph.node:
        node.input[:] = [_PER_STREAM if name == "mix" else name for name in node.input]
    return str(mix.type.tensor_type.shape.dim[0].dim_param)


def _put_first(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "salema_flat"))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def _closed(proto: onnx.ModelProto) -> bytes:
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString())
