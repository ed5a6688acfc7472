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
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
        records = [json.loads(line) for line in lines]
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; make one with: salema-bench --json {path}") from None
    except ValueError:
        records = []
    if not records or not all(
        isinstance(record, dict) and record.get("schema") in _READABLE and record.get("kind") == kind
        for record in records
    ):
        command = "salema-bench cost" if kind == "cost" else "salema-bench"
        raise UsageError(f"{path}: holds no {kind} records; make some with: {command} --json FILE.jsonl")
    return records


def key_of(record: dict[str, Any]) -> tuple[str, str, str, int]:
    """Returns what two records must share to be compared: case, backend, precision and batch."""
    return record["case"], record["backend"], record["precision"], record["batch"]
