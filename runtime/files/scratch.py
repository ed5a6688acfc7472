"""Temporary folders that go away even if the process that made them is killed: the next one removes what is left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from salema.runtime.files.locks import has_locks, lock_if_possible

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
    if not has_locks():
        return _NO_LOCKS
    try:  # no link, nor a FIFO, which would be waited for
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # it is gone, or another user's
        return None
    is_ours = lock_if_possible(handle)
    if is_ours:
        return handle
    os.close(handle)
    return _NO_LOCKS if is_ours is None else None


def _unlock(lock: int | None) -> None:
    if lock is not None and lock != _NO_LOCKS:
        os.close(lock)
