"""Files that can be ended well on a disk that has filled up."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Of an MP4's index: at most 32 bytes a packet, and packets of 1 kB on average are small ones.
_ROOM, _INDEX_SHARE = 1 << 18, 1 / 32


class RoomyFile:
    """A file to write to that keeps room on the disk for what an MP4 or NPZ file gets last: its index.

    FFmpeg holds packets back for as long as ten seconds, so room is kept for each before FFmpeg gets it.

    Args:
        path: the file to make.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb+")
        self._end = self._taken = self._promised = 0

    def reserve(self, size: int) -> None:
        """Keeps room for a packet, or a map, and its share of the index.

        Raises:
            OSError: there is none; what was reserved before can still be written, and the index.
        """
        promised = self._promised + size
        room = promised + _ROOM + int(_INDEX_SHARE * promised)
        if room > self._taken and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file.fileno(), self._taken, room + _ROOM - self._taken)
            self._taken = room + _ROOM
        self._promised = promised

    def write(self, data: bytes) -> int:
        """Writes at the place where the file stands."""
        self._end = max(self._end, self._file.tell() + len(data))
        return self._file.write(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place; the end is that of what was written."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._end}[whence]
        return self._file.seek(base + offset)

    def read_at(self, place: int, size: int) -> bytes:
        """Returns bytes of what was written."""
        self._file.flush()
        return os.pread(self._file.fileno(), size, place)

    def flush(self) -> None:
        """Hands what was written to the system."""
        self._file.flush()

    def tell(self) -> int:
        """Returns the place."""
        return self._file.tell()

    def close(self) -> None:
        """Gives back the room that was not needed."""
        if not self._file.closed:
            try:
                self._file.flush()
                self._file.truncate(self._end)
            finally:
                self._file.close()
