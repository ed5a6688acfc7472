"""One process at a time, by a lock on a file that is there anyway."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from salema.runtime.files.locks import lock_if_possible

_POLL_S = 0.1


@contextmanager
def alone_with(path: Path, most_s: float, waits: Callable[[], None]) -> Iterator[None]:
    """Waits until no other process is in such a block of this file, and keeps others out meanwhile.

    After `most_s` seconds, and where a file that is read can't be locked (Windows, some network file systems), it goes
    on all the same. The file must be one that nobody locks for another purpose, as `scratch.py` does its folders.

    `waits` is called once if there is a wait.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            stack.callback(os.close, handle)
            _wait_for(handle, time.monotonic() + most_s, waits)
        yield


def _wait_for(handle: int, until_s: float, waits: Callable[[], None]) -> None:
    is_told = False
    while lock_if_possible(handle) is False and time.monotonic() <= until_s:
        if not is_told:
            waits()
        is_told = True
        time.sleep(_POLL_S)
