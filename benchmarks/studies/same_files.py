"""Compares files of two runs of one command: all must be equal but times, versions and what follows from them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import onnx

# Entries that may differ between runs, versions or machines.
VARYING = frozenset({"salema_version", "commit", "seconds", "fps", "stage_ms", "size_bytes"})
VARYING |= {"onnx_sha256", "files_sha256"}  # of files that hold the version


def is_same(before: Path, after: Path) -> bool:
    """Whether two files are equal but for times, versions and what follows from them."""
    if before.read_bytes() == after.read_bytes():
        return True
    read = _READERS.get(before.suffix)
    return read is not None and read(before) == read(after)


def compare(before: Path, after: Path) -> dict[str, str]:
    """Returns, for each file of two folders by its path there, `same`, `differs`, `only before` or `only after`."""
    sides = [{str(path.relative_to(side)) for path in side.rglob("*") if path.is_file()} for side in (before, after)]
    verdicts = {}
    for name in sorted(sides[0] | sides[1]):
        if name in sides[0] & sides[1]:
            verdicts[name] = "same" if is_same(before / name, after / name) else "differs"
        else:
            verdicts[name] = "only before" if name in sides[0] else "only after"
    return verdicts


def _graph(path: Path) -> object:
    proto = onnx.load(path)
    facts = {entry.key: _lasting(json.loads(entry.value)) for entry in proto.metadata_props}
    proto.producer_version = ""
    del proto.metadata_props[:]
    return facts, proto.SerializeToString(deterministic=True)


def _members(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _pictures_and_sound(path: Path) -> object:
    with av.open(str(path)) as container:
        pictures = [
            (frame.pts, hashlib.sha256(frame.to_ndarray().tobytes()).digest()) for frame in container.decode(video=0)
        ]
    with av.open(str(path)) as container:
        return pictures, [(packet.pts, bytes(packet)) for packet in container.demux() if packet.stream.type == "audio"]


def _records(path: Path) -> object:
    text = path.read_text("utf-8")
    records = [json.loads(line) for line in (text.splitlines() if path.suffix == ".jsonl" else [text])]
    return json.dumps(_lasting(records), sort_keys=True)  # as text, where NaN equals NaN


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(inner) for key, inner in value.items() if key not in VARYING}
    return [_lasting(inner) for inner in value] if isinstance(value, list) else value


_READERS: dict[str, Callable[[Path], object]] = {
    **dict.fromkeys((".npz", ".zip"), _members),
    **dict.fromkeys((".json", ".jsonl"), _records),
    ".mp4": _pictures_and_sound,
    ".onnx": _graph,
}
