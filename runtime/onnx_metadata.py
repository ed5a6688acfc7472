"""Reads the facts in an ONNX file without onnx or ONNX Runtime: a Jetson that builds an engine has neither.

Source: onnx.proto3 (`ModelProto.metadata_props` is field 14; `StringStringEntryProto` has key 1 and value 2), and
"Protocol Buffers: Encoding".
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from salema.runtime.errors import ModelError
from salema.runtime.spec import METADATA_KEY, ModelSpec

_METADATA_PROPS = 14
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_METADATA_BYTES = 1 << 20
_MOST_VARINT_BYTES = 10


def read_spec(model: Path) -> ModelSpec:
    """Reads the record that `salema-export` wrote into an ONNX file.

    Raises:
        ModelError: the file is not ONNX, salema-export did not write it, or a newer version of it did.
    """
    with model.open("rb") as file:
        return _find_spec(file, os.fstat(file.fileno()).st_size, str(model))


def parse_spec(data: bytes, where: str) -> ModelSpec:
    """Reads the record from the bytes of an ONNX file, as `read_spec` does; `where` names the file in messages."""
    return _find_spec(io.BytesIO(data), len(data), where)


def _find_spec(file: BinaryIO, size: int, where: str) -> ModelSpec:
    try:
        for entry in _fields(file, size, _METADATA_PROPS):
            record = _entry(entry)
            if record.get(_KEY) == METADATA_KEY.encode():
                return ModelSpec.from_json(record.get(_VALUE, b"").decode(), where)
    except (EOFError, UnicodeDecodeError):
        raise ModelError(f"{where}: not an ONNX file, or cut off; export it again") from None
    raise ModelError(f"{where}: an ONNX model, but not one that salema-export wrote; export your checkpoint with it")


def _entry(data: bytes) -> dict[int, bytes]:
    return {number: value for number in (_KEY, _VALUE) for value in _fields(io.BytesIO(data), len(data), number)}


def _fields(file: BinaryIO, end: int, wanted: int) -> Iterator[bytes]:
    """Yields the byte strings of one field number. It skips the other fields, and the weights in them, unread."""
    while file.tell() < end:
        tag = _varint(file)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            _varint(file)
            continue
        sizes = {_FIXED64: 8, _FIXED32: 4}
        size = _varint(file) if wire_type == _BYTES else sizes.get(wire_type, end + 1)
        if file.tell() + size > end or (number == wanted and size > _MOST_METADATA_BYTES):
            raise EOFError
        if number == wanted and wire_type == _BYTES:
            yield file.read(size)
        else:
            file.seek(size, os.SEEK_CUR)


def _varint(file: BinaryIO) -> int:
    value = 0
    for index in range(_MOST_VARINT_BYTES):
        byte = file.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 0x7F) << (7 * index)
        if not byte[0] & 0x80:
            return value
    raise EOFError
