"""Temporary folders that go away even if the process that made them is killed: the next one removes what is left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nothing is removed for others
    fcntl = None  # type: ignore[assignment]

_PREFIX = "salema-scratch-"
_NO_LOCKS = -1


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yields an empty temporary folder, and removes it in the end; first it removes those of killed processes."""
    sweep()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = _lock(folder)
        if lock is not None and folder.is_dir():
            break
        _unlock(lock)  # another process has swept it away before it was locked
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


def sweep() -> None:
    """Removes the folders that killed processes of this user have left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = _lock(folder)
        if lock is not None and lock != _NO_LOCKS:  # else it may be in use
            shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


def _lock(folder: Path) -> int | None:
    """Returns a handle that holds the folder until it is closed or the process ends.

    None if another process holds it or it can't be opened, and `_NO_LOCKS` where there are no locks.
    """
    lock: int | None = _NO_LOCKS
    if fcntl is not None:
        lock = _flocked(folder)
    return lock


def _flocked(folder: Path) -> int | None:
    try:  # no link, nor a FIFO, which would be waited for
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # it is gone, or another user's
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:  # a file system without locks
        os.close(handle)
        return _NO_LOCKS
    return handle


def _unlock(lock: int | None) -> None:
    if lock is not None and lock != _NO_LOCKS:
        os.close(lock)
