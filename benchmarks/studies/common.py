"""What the studies share: writing their results, and keeping to one core."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from salema.benchmarks.machine.environment import cpu_in_words, describe_environment
from salema.runtime.files.whole_files import write_bytes


def write_study(record: dict[str, Any], *, timed: bool = True) -> None:
    """Writes a record to the file that the command names last; a timed one with the facts of its machine."""
    whole = {"environment": describe_environment(), **record} if timed else record
    write_bytes(Path(sys.argv[-1]), json.dumps(whole, indent=1).encode() + b"\n")


def write_by_cpu(record: dict[str, Any]) -> None:
    """Writes a record into a list in the file that the command names last; it replaces that of the same CPU."""
    _write_among(record, lambda kept, whole: cpu_of(kept) != cpu_of(whole))


def write_next(record: dict[str, Any]) -> None:
    """Writes a record behind those in the file that the command names last."""
    _write_among(record, lambda *_: True)


def _write_among(record: dict[str, Any], is_kept: Callable[[dict[str, Any], dict[str, Any]], bool]) -> None:
    path, whole = Path(sys.argv[-1]), {"environment": describe_environment(), **record}
    before = json.loads(path.read_text("utf-8")) if path.is_file() else []
    others = [kept for kept in before if is_kept(kept, whole)]
    write_bytes(path, json.dumps([*others, whole], indent=1).encode() + b"\n")


def cpu_of(record: dict[str, Any]) -> str:
    """Returns the CPU of a record in words: its family and model, and what decides how fast a network runs."""
    return cpu_in_words(record["environment"])


def take_one_core() -> None:
    """Keeps this process and its children on one core, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
