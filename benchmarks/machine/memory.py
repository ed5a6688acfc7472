"""This process's memory in MB of 10**6 bytes."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.platform != "win32":
    import resource


def resident_mb() -> float:
    """Returns the memory it holds now; where the system does not tell, the peak, and on Windows 0."""
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """Returns the peak of its memory; on Windows 0."""
    # Better than ru_maxrss, which on Linux starts with the peak of the program that started this one.
    return _status_mb("VmHWM")


def _status_mb(entry: str) -> float:
    status = Path("/proc/self/status")
    lines = status.read_text("utf-8").splitlines() if status.is_file() else []
    kilobytes = [line.split()[1] for line in lines if line.startswith(f"{entry}:")]
    if kilobytes:
        return int(kilobytes[0]) * 1024 / 1e6
    return 0.0 if sys.platform == "win32" else _most_mb()


def _most_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
