"""Records of measurements: one line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from salema.runtime.errors import UsageError
from salema.runtime.files.whole_files import write_bytes

SCHEMA = 2
_READABLE = (1, 2)  # a limit of schema 1 is that of a matrix product: `ideal_ms` and `share`


def write_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Writes records, one line each.

    Raises:
        OutputError: the file can't be written.
    """
    write_bytes(path, b"".join(json.dumps(record).encode() + b"\n" for record in records))


def read_records(path: Path, kind: str = "case") -> list[dict[str, Any]]:
    """Reads what `write_records` wrote: records of one kind, `case` or `cost`.

    Raises:
        UsageError: the file is missing, or holds something else.
    """
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; make one with: salema-bench --json {path}") from None
    found = {number: _record(line, kind) for number, line in enumerate(lines, 1) if line.strip()}
    records = [record for record in found.values() if record is not None]
    if not records:
        command = "salema-bench cost" if kind == "cost" else "salema-bench"
        raise UsageError(f"{path}: holds no {kind} records; make some with: {command} --json FILE.jsonl")
    if None in found.values():
        wrong = next(number for number, record in found.items() if record is None)
        raise UsageError(f"{path}: line {wrong} is no {kind} record; take it out")
    return records


def _record(line: str, kind: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_known = isinstance(record, dict) and record.get("schema") in _READABLE and record.get("kind") == kind
    return record if is_known else None


def key_of(record: dict[str, Any]) -> tuple[str, str, str, int]:
    """Returns what two records must share to be compared: case, backend, precision and batch."""
    return record["case"], record["backend"], record["precision"], record["batch"]
