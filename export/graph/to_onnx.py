"""From the PyTorch step to one ONNX file: strongly typed, checked, with its spec as metadata."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from salema.runtime.backends.ncnn_form import FORM_KEY, NcnnForm
from salema.runtime.spec import METADATA_KEY, ModelSpec

OPSET = 18
IR_VERSION = 8  # the oldest with opset 18: ONNX Runtime and TensorRT refuse versions newer than they know
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "int8": torch.float32}  # INT8 is made from FP32


def to_onnx(model: nn.Module, spec: ModelSpec, form: NcnnForm | None = None) -> onnx.ModelProto:
    """Exports one time step, or a part of it.

    `model` is the `SaliencyStep`, or its `Encoder` or `Decoder`, with weights in the precision of `spec`. `spec`, and
    the same model's `form` for ncnn, are written into the metadata.

    Returns:
        A model with inputs `spec.input_names` and outputs `spec.output_names`, which passed ONNX's full check.
    """
    shapes = replace(spec, batch=None).tensor_shapes  # in which only the batch is None
    arguments = tuple(
        torch.zeros(tuple(size or 1 for size in shapes[name]), dtype=getattr(torch, spec.tensor_dtype(name)))
        for name in spec.input_names
    )
    with quiet("torch.onnx"):  # it remarks on a missing torchvision and on its own deprecations
        program = torch.onnx.export(
            model.eval(),
            arguments,
            input_names=spec.input_names,
            output_names=spec.output_names,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    name_outputs(proto.graph, spec.output_names)
    if spec.batch != 1:
        set_batch(proto.graph, spec.batch)
    restore_biases(proto.graph)
    describe(proto, spec, form)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def set_batch(graph: onnx.GraphProto, batch: int | None) -> None:
    """Gives a graph that was traced for one stream another batch; None leaves it free.

    The inputs and outputs hold the batch, and shapes to which tensors are reshaped; those in between are inferred.
    PyTorch's own tracing of a free batch gives the same nodes, and takes longer.
    """
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if batch is None:
            first.dim_param = "batch"
        else:
            first.dim_value = batch
    reshaped = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for constant in graph.initializer:
        if constant.name in reshaped:
            shape = numpy_helper.to_array(constant)
            constant.CopyFrom(numpy_helper.from_array(np.array([-1, *shape[1:]], shape.dtype), constant.name))


def name_outputs(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Names a graph's outputs, in order.

    PyTorch 2.9 with onnxscript 0.6.1 names them otherwise if two outputs are one tensor: SalEMA61's map is its state.
    """
    renamed = {output.name: name for output, name in zip(graph.output, names, strict=True)}
    for node in graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [renamed.get(name, name) for name in tensors]
    for value in (*graph.output, *graph.value_info):
        value.name = renamed.get(value.name, value.name)


def restore_biases(graph: onnx.GraphProto) -> None:
    """Gives each convolution a bias of its own name, which the rewrites and ncnn look for.

    The exporter leaves biases of zeros out, as a network has that was hardly trained, and of equal ones it keeps one.
    """
    kept = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Conv" or node.input[1] not in kept:
            continue
        weight, own = kept[node.input[1]], f"{node.input[1].removesuffix('.weight')}.bias"
        if own not in kept:
            zeros = numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(weight)[:, 0, 0, 0]))
            kept[own] = graph.initializer.add()
            kept[own].CopyFrom(kept[node.input[2]] if node.input[2:] else zeros)
            kept[own].name = own
        node.input[2:] = [own]


def describe(proto: onnx.ModelProto, spec: ModelSpec, form: NcnnForm | None = None) -> None:
    """Writes our metadata into a graph, and removes the exporter's: its stack traces name this machine's folders."""
    proto.ir_version = IR_VERSION
    proto.producer_name, proto.producer_version = "salema", spec.salema_version
    del proto.metadata_props[:]
    for key, record in ((METADATA_KEY, spec), (FORM_KEY, form)):
        if record is not None:
            entry = proto.metadata_props.add()
            entry.key, entry.value = key, record.to_json()
    graph = proto.graph
    graph.name = spec.architecture
    graph.doc_string = ""
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""


@contextmanager
def quiet(library: str | None = None) -> Iterator[None]:
    """Silences the warnings of libraries, and what one of them logs (None for all) that is no error."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
