"""Reads the facts in an ONNX file without onnx or ONNX Runtime: a Jetson that builds an engine has neither.

Source: onnx.proto3 (`ModelProto.metadata_props` is field 14; `StringStringEntryProto` has key 1 and value 2).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from salema.runtime.errors import ModelError
from salema.runtime.files.protobuf import Field, content, fields, size_of
from salema.runtime.spec import METADATA_KEY, ModelSpec

_METADATA_PROPS = 14
_KEY, _VALUE = 1, 2
_MOST_METADATA_BYTES = 1 << 20


def read_spec(model: Path) -> ModelSpec:
    """Reads the record that `salema-export` wrote into an ONNX file.

    Raises:
        ModelError: the file is not ONNX, salema-export did not write it, or a newer version of it did.
    """
    with model.open("rb") as file:
        return _spec_in(file, str(model))


def parse_spec(data: bytes, where: str) -> ModelSpec:
    """Reads the record from the bytes of an ONNX file, as `read_spec` does; `where` names the file in messages."""
    return _spec_in(io.BytesIO(data), where)


def read_metadata(model: Path, key: str) -> str | None:
    """Reads one entry of an ONNX file's metadata; None if there is none of that key.

    Raises:
        ModelError: the file is not ONNX, or cut off.
    """
    with model.open("rb") as file:
        return _entry_in(file, key, str(model))


def tensors_differ(model: Path, shapes: Mapping[str, Sequence[int | None]]) -> ModelError:
    """Returns the error for a graph whose tensors are not those of its record; `shapes` is of its inputs, by name."""
    if "started_in" in shapes or len(shapes.get("mix", ())) > 1:  # see `export/serving/graphs.py`
        return ModelError(
            f"{model}: a graph for Triton or DeepStream, which salema-export --emit wrote; name the model's own folder,"
            " which --emit read"
        )
    return ModelError(f"{model}: its inputs and outputs are not those of its metadata; export it again")


def _spec_in(file: BinaryIO, where: str) -> ModelSpec:
    text = _entry_in(file, METADATA_KEY, where)
    if text is None:
        raise ModelError(
            f"{where}: an ONNX model, but not one that salema-export wrote; export your checkpoint with it"
        )
    return ModelSpec.from_json(text, where)


def _entry_in(file: BinaryIO, key: str, where: str) -> str | None:
    try:
        props = [field for field in fields(file, 0, size_of(file)) if field.number == _METADATA_PROPS]
        entries = {entry.get(_KEY, b""): entry.get(_VALUE, b"") for entry in (_entry(file, field) for field in props)}
        return entries[key.encode()].decode() if key.encode() in entries else None
    except (EOFError, UnicodeDecodeError):
        raise ModelError(f"{where}: not an ONNX file, or cut off; export it again") from None


def _entry(file: BinaryIO, field: Field) -> dict[int, bytes]:
    if field.size > _MOST_METADATA_BYTES:
        raise EOFError
    return {
        part.number: content(file, part, _MOST_METADATA_BYTES)
        for part in fields(file, field.start, field.start + field.size)
        if part.number in {_KEY, _VALUE}
    }
