"""This process's memory in MB of 10**6 bytes."""

from __future__ import annotations

import resource
from pathlib import Path


def resident_mb() -> float:
    """Returns the memory it holds now; where the system does not tell, the peak."""
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """Returns the peak of its memory."""
    # Better than ru_maxrss, which on Linux starts with the peak of the program that started this one.
    return _status_mb("VmHWM")


def _status_mb(entry: str) -> float:
    status = Path("/proc/self/status")
    lines = status.read_text("utf-8").splitlines() if status.is_file() else []
    kilobytes = [line.split()[1] for line in lines if line.startswith(f"{entry}:")]
    return (int(kilobytes[0]) if kilobytes else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024 / 1e6
