"""Syncs files to the disk within about a second: a power cut loses what is only in the system's memory."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

_EVERY_S = 1.0
_NO_SUCH_CALL = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}


class _Syncer:
    """Syncs files that were written to, on its own thread: on a slow card a sync takes longer than a frame."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: set[Path] = set()
        self._thread: threading.Thread | None = None

    def add(self, path: Path) -> None:
        """Adds a file that has been written to."""
        with self._changed:
            if self._thread is None or not self._thread.is_alive():  # a forked process has no threads
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
                with suppress(OSError):  # it has been renamed, or its file system can't sync
                    sync(path)
            time.sleep(_EVERY_S)


_syncer = _Syncer()


def sync_soon(path: Path) -> None:
    """Syncs a file that has been written to, and its name, within about a second."""
    _syncer.add(path)


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's names, are on the disk. On Windows it does nothing.

    Nor does it where the file system has no such call.

    Raises:
        OSError: the path does not exist, or the disk failed.
    """
    if sys.platform == "win32":  # Windows syncs no folders, and no files that are open for reading only
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
    finally:
        os.close(descriptor)
