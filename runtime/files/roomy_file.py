"""Files that can be finished on a disk that has become full."""

from __future__ import annotations

import os
from pathlib import Path

# For the times and the index that an NPZ file gets last: much more than they take.
_ROOM, _INDEX_SHARE = 1 << 18, 1 / 32


class RoomyFile:
    """A file that keeps room on the disk for what it gets last."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb+")
        self._end = self._taken = self._promised = 0

    def reserve(self, size: int) -> None:
        """Reserves room for a map of `size` bytes, and for its share of what comes last.

        Raises:
            OSError: the disk is full; what was reserved before can still be written, and the index too.
        """
        promised = self._promised + size
        room = promised + _ROOM + int(_INDEX_SHARE * promised)
        if room > self._taken and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file.fileno(), self._taken, room + _ROOM - self._taken)
            self._taken = room + _ROOM
        self._promised = promised

    def write(self, data: bytes) -> int:
        """Writes at the file's position."""
        self._end = max(self._end, self._file.tell() + len(data))
        return self._file.write(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Sets the position; the file's end is the end of what was written, without the reserved room."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._end}[whence]
        return self._file.seek(base + offset)

    def read_at(self, place: int, size: int) -> bytes:
        """Returns up to `size` bytes from `place` on; the position stays as it is."""
        self._file.flush()
        return os.pread(self._file.fileno(), size, place)

    def flush(self) -> None:
        """Passes the written bytes to the system."""
        self._file.flush()

    def tell(self) -> int:
        """Returns the position."""
        return self._file.tell()

    def close(self) -> None:
        """Closes the file, and frees the room that it did not need."""
        if not self._file.closed:
            try:
                self._file.flush()
                self._file.truncate(self._end)
            finally:
                self._file.close()
