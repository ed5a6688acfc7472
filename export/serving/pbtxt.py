"""Protobuf's text format, as Triton and DeepStream read their configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


class Name(str):
    """A value of an enumeration: it is written without quotes."""

    __slots__ = ()


def pbtxt(record: Mapping[str, Any]) -> str:
    """Writes a message: a mapping is a message, a tuple a list in one line, a list the same field several times."""
    return "".join(f"{line}\n" for line in _lines(record))


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    for key, value in record.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                yield f"{key} {{"
                yield from (f"  {line}" for line in _lines(item))
                yield "}"
            else:
                yield f"{key}: {_scalar(item)}"


def _scalar(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    return value if isinstance(value, Name) else json.dumps(value)
