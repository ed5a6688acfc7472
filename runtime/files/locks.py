"""Locks on open files, each held until its file is closed or the process ends."""

from __future__ import annotations

from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def has_locks() -> bool:
    """Whether this system has them at all."""
    return fcntl is not None


def lock(file: BinaryIO | int) -> bool:
    """Locks an open file; returns False if another process holds it.

    Raises:
        OSError: its file system, or this system, has no locks.
    """
    if fcntl is None:
        raise OSError("this system has no locks")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_if_possible(file: BinaryIO | int) -> bool | None:
    """Locks an open file; returns False if another process holds it, and None where there are no locks."""
    try:
        return lock(file)
    except OSError:
        return None
