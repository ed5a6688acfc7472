"""This process' memory in MB of 10**6 bytes."""

from __future__ import annotations

import resource
from pathlib import Path


def resident_mb() -> float:
    """Returns what it holds now, or where the system does not tell, the most so far."""
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """Returns the most that it has held."""
    # Not ru_maxrss where it can be helped: on Linux a new program starts with the peak of the one that started it.
    return _status_mb("VmHWM")


def _status_mb(entry: str) -> float:
    status = Path("/proc/self/status")
    lines = status.read_text("utf-8").splitlines() if status.is_file() else []
    found = [line.split()[1] for line in lines if line.startswith(f"{entry}:")]
    return (int(found[0]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024 / 1e6
