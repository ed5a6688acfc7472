"""Each graph of a narrow network is traced once a run, for all of pytest-xdist's workers.

PyTorch's tracing takes most of an export, and most tests that export are about something else.
"""

import hashlib
import io
import pickle
from contextlib import suppress
from functools import cache, wraps
from types import SimpleNamespace

import numpy as np
import onnx
import torch
from torch.export import exported_program

NARROW = 5_000_000  # weights, of 31 million


def read_operators_once():
    """Has the exporter read its own operators and PyTorch's once, not at each export: a third of its time."""
    with suppress(ImportError, AttributeError):  # another version of it is slower
        from torch.export import decomp_utils
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        ONNXRegistry.from_torchlib = classmethod(cache(ONNXRegistry.from_torchlib.__func__))
        once = cache(exported_program._collect_all_valid_cia_ops)
        exported_program._collect_all_valid_cia_ops = decomp_utils._collect_all_valid_cia_ops = once
        torch._ops.Callable = Unread()


class Unread:
    """In place of `Callable` in annotations, which PyTorch evaluates anew for 11000 functions of each export."""

    def __getitem__(self, _):
        return self

    def __instancecheck__(self, value):
        return callable(value)


class Described(pickle.Pickler):
    """Tensors by their values: PyTorch's own way writes addresses too."""

    def reducer_override(self, value):
        if isinstance(value, torch.Tensor):
            return np.array, (value.detach().numpy(),)
        return NotImplemented


def digest(*values):
    described = io.BytesIO()
    Described(described).dump(values)
    return hashlib.sha256(described.getvalue()).hexdigest()


def trace_once(monkeypatch, once):
    """Has `torch.onnx.export` keep what it gave, by all that a graph is made from, weights included."""
    trace = torch.onnx.export

    @wraps(trace)
    def export(model, arguments, **options):
        if sum(tensor.numel() for tensor in model.parameters()) > NARROW:
            return trace(model, arguments, **options)  # a file of 120 MB is not to be kept
        shapes = [(tuple(tensor.shape), tensor.dtype) for tensor in arguments]

        def make(_folder):
            return trace(model, arguments, **options).model_proto.SerializeToString()

        graph = once(make, "traced", digest(model, shapes, sorted(options.items())))
        return SimpleNamespace(model_proto=onnx.ModelProto.FromString(graph))

    monkeypatch.setattr(torch.onnx, "export", export)
