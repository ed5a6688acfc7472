"""Files that reach the disk itself within a second or so: what only the system's memory holds goes with the power."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_EVERY_S = 1.0


class _Syncer:
    """Syncs what was written lately, in a thread of its own: on a slow card that takes longer than a frame."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: set[Path] = set()
        self._thread: threading.Thread | None = None

    def add(self, path: Path) -> None:
        """Takes note of a file that has been written to."""
        with self._changed:
            if self._thread is None or not self._thread.is_alive():  # not there any more in a forked process
                self._thread = threading.Thread(target=self._run, daemon=True, name="disk sync")
                self._thread.start()
            if path not in self._waiting:
                self._waiting.add(path)
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                paths, self._waiting = self._waiting, set()
            for path in paths | {path.parent for path in paths}:
                with suppress(OSError):  # renamed meanwhile, or a file system that can't
                    sync(path)
            time.sleep(_EVERY_S)


_syncer = _Syncer()


def sync_soon(path: Path) -> None:
    """Has a file, which has been written to, and its name on the disk within a second or so."""
    _syncer.add(path)


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's names, are on the disk; on Windows it does nothing.

    Raises:
        OSError: it is not there, or its file system can't do that.
    """
    if sys.platform == "win32":  # it syncs no folder, and no file that is open for reading only
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
