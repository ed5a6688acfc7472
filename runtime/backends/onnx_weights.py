"""Reads weights from an ONNX file without onnx or ONNX Runtime.

Source: onnx.proto3 (`ModelProto.graph` is field 7, `GraphProto.initializer` field 5; of a `TensorProto` the dims are
field 1, the type field 2, the name field 8 and the raw data field 9).
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from salema.runtime.errors import ModelError
from salema.runtime.files.protobuf import VARINT, Field, content, fields, numbers, size_of

_GRAPH, _INITIALIZER = 7, 5
_DIMS, _TYPE, _NAME, _RAW = 1, 2, 8, 9
_TYPES = {1: "<f4", 10: "<f2"}  # TensorProto.DataType
_MOST_NAME_BYTES = _MOST_DIMS_BYTES = 1 << 10


def read_weights(model: Path) -> dict[str, NDArray[np.float32]]:
    """Reads the float tensors that an ONNX file holds, by name, as float32; those of a float16 model are widened.

    Raises:
        ModelError: the file is not ONNX, or cut off.
    """
    try:
        with model.open("rb") as file:
            return {
                name: array
                for graph in fields(file, 0, size_of(file))
                if graph.number == _GRAPH
                for part in fields(file, graph.start, graph.start + graph.size)
                if part.number == _INITIALIZER
                for name, array in _tensor(file, part).items()
            }
    except (EOFError, ValueError):
        raise ModelError(f"{model}: not an ONNX file, or cut off; export it again") from None


def _tensor(file: BinaryIO, field: Field) -> dict[str, NDArray[np.float32]]:
    """Returns one tensor by its name; nothing if it is of another type."""
    name, kind, raw, shape = "", "", b"", list[int]()
    for part in fields(file, field.start, field.start + field.size):
        if part.number == _NAME:
            name = content(file, part, _MOST_NAME_BYTES).decode()
        elif part.number == _TYPE:
            kind = _TYPES.get(part.value, "")
        elif part.number == _DIMS:  # one by one, or packed
            shape += [part.value] if part.wire_type == VARINT else numbers(content(file, part, _MOST_DIMS_BYTES))
        elif part.number == _RAW and kind:  # serializers write it after the type
            raw = content(file, part, part.size)
    return {name: np.frombuffer(raw, kind).reshape(shape).astype(np.float32, copy=False)} if kind and raw else {}
