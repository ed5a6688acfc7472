"""One process at a time in a folder, without a file there that tells of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_POLL_S = 0.1


@contextmanager
def alone_in(folder: Path, most_s: float, waits: Callable[[], None]) -> Iterator[None]:
    """Waits until no other process is in such a block of this folder, and keeps others out meanwhile.

    After `most_s` seconds, and where folders can't be locked (Windows, some network file systems), it goes on all the
    same.

    Args:
        folder: the folder.
        most_s: the longest wait.
        waits: called once if there is a wait.
    """
    with ExitStack() as stack:
        if fcntl is not None:
            with suppress(OSError):
                handle = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, handle)
                _lock(handle, most_s, waits)
        yield


def _lock(handle: int, most_s: float, waits: Callable[[], None]) -> None:
    until_s, is_told = time.monotonic() + most_s, False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # noqa: PERF203 - the loop is for waiting
            if time.monotonic() > until_s:
                return
            if not is_told:
                waits()
            is_told = True
            time.sleep(_POLL_S)
        else:
            return
