"""Walks over the fields of a protocol buffer file without reading those that nobody wants.

Source: "Protocol Buffers: Encoding".
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

VARINT, _FIXED64, BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MOST_VARINT_BYTES = 10


class Field(NamedTuple):
    """One field: its number and wire type, its value if it is a number, and where its bytes lie in the file."""

    number: int
    wire_type: int
    value: int
    start: int
    size: int


def fields(file: BinaryIO, start: int, end: int) -> Iterator[Field]:
    """Yields the fields of the message that lies from `start` to `end`; their bytes are not read.

    Raises:
        EOFError: it is no message, or cut off.
    """
    file.seek(start)
    while file.tell() < end:
        number, wire_type = divmod(_varint(file), 8)
        if wire_type == VARINT:
            yield Field(number, wire_type, _varint(file), place := file.tell(), 0)
        else:
            size = _varint(file) if wire_type == BYTES else _SIZES.get(wire_type, end + 1)
            place = file.tell()
            if place + size > end:
                raise EOFError
            yield Field(number, wire_type, 0, place, size)
            place += size
        file.seek(place)


def content(file: BinaryIO, field: Field, most_bytes: int) -> bytes:
    """Reads a field's bytes.

    Raises:
        EOFError: there are more than `most_bytes`, or it holds no bytes.
    """
    if field.size > most_bytes or field.wire_type != BYTES:
        raise EOFError
    file.seek(field.start)
    return file.read(field.size)


def numbers(data: bytes) -> list[int]:
    """Returns the numbers of a packed field.

    Raises:
        EOFError: the last one is cut off.
    """
    file, found = io.BytesIO(data), []
    while file.tell() < len(data):
        found.append(_varint(file))
    return found


def size_of(file: BinaryIO) -> int:
    """Returns the file's size in bytes."""
    return file.seek(0, os.SEEK_END)


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
