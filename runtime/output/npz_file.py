"""An NPZ file whose long array is written piece by piece; `numpy.load` reads it."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salema.runtime.files.disk_sync import sync_soon
from salema.runtime.files.roomy_file import RoomyFile

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

_HEADER_BYTES = 128
_LOCAL_HEADER_BYTES, _CRC_AT = 30, 14  # of a ZIP file (APPNOTE 4.3.7)
_BLOCK = 1 << 20
_TIMES = ".times"


class NpzFile:
    """Takes float32 arrays of one shape; the file holds them as one array `maps`, `[T, ...]`.

    Their number is in the header before them, and in the checksum, so both are corrected at the end.
    """

    def __init__(self, path: Path) -> None:
        self._file = RoomyFile(path)
        self._archive = zipfile.ZipFile(self._file, "w")
        self._info = zipfile.ZipInfo("maps.npy")
        self._member: Any = self._archive.open(self._info, "w", force_zip64=True)
        self._path, self._count, self._first_header = path, 0, b""
        self._shape: tuple[int, ...] = ()

    def append(self, values: NDArray[np.float32]) -> None:
        """Adds one array.

        Raises:
            OSError: the disk is full; `finish` keeps the arrays before.
        """
        data = np.ascontiguousarray(values, "<f4").tobytes()
        self._file.reserve(len(data))
        if not self._first_header:  # `recover_npz` reads the shape from it
            self._shape, self._first_header = values.shape, _npy_header((0, *values.shape))
            self._member.write(self._first_header)
        self._member.write(data)
        self._file.flush()
        self._count += 1
        sync_soon(self._path)

    def finish(self, **others: NDArray[Any]) -> None:
        """Completes the file, with some other, short arrays.

        Raises:
            OSError: the disk is full.
        """
        self._member.close()
        self._correct_header(_npy_header((self._count, *self._shape)))
        for name, values in others.items():
            with self._archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, values)
        self._archive.close()

    def _correct_header(self, header: bytes) -> None:
        """Replaces the first header, and corrects the checksum.

        A CRC is linear over texts of one length: crc(a) ^ crc(b) = crc(a ^ b) ^ crc(zeros).
        """
        differing = bytes(a ^ b for a, b in zip(self._first_header, header, strict=True))
        rest = self._info.file_size - len(header)
        self._info.CRC ^= _crc_with_zeros(differing, rest) ^ _crc_with_zeros(bytes(len(header)), rest)
        end = self._file.tell()
        names = self._info.header_offset + _LOCAL_HEADER_BYTES - 4  # the lengths of name and extra field
        self._file.seek(self._info.header_offset + _CRC_AT)
        self._file.write(struct.pack("<L", self._info.CRC))
        self._file.seek(names + 4 + sum(struct.unpack("<2H", self._file.read_at(names, 4))))
        self._file.write(header)
        self._file.seek(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, ValueError):  # after a failure; else it is closed
            self._member.close()
        self._archive.fp = None  # so that it writes no directory: an unfinished file is removed
        self._file.close()


@contextmanager
def times_file(path: Path) -> Iterator[io.FileIO]:
    """Opens a file for the arrays' times, float64, beside the NPZ file that is being written; removes it at the end.

    In the NPZ file itself the times come after the last array.
    """
    times = path.with_suffix(_TIMES)
    try:
        with io.FileIO(times, "w") as file:
            yield file
    finally:
        times.unlink(missing_ok=True)


def recover_npz(path: Path, target: Path) -> int:
    """Makes a whole NPZ file from a half-written one; returns how many arrays it holds.

    Raises:
        OSError, ValueError, struct.error: it holds none, or the disk is full.
    """
    with path.open("rb") as file:
        file.seek(_LOCAL_HEADER_BYTES - 4)
        file.seek(sum(struct.unpack("<2H", file.read(4))), io.SEEK_CUR)
        np.lib.format.read_magic(file)
        (_, *shape), _, _ = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
    room = (path.stat().st_size - start) // (4 * math.prod(shape))
    times_s = np.fromfile(path.with_suffix(_TIMES), "<f8", room)
    arrays = np.memmap(path, "<f4", "r", start, (len(times_s), *shape))
    with NpzFile(target) as whole:
        for array in arrays:
            whole.append(array)
        whole.finish(times_s=times_s)
    return len(times_s)


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """Returns a header of fixed length, in NumPy's format 1.0."""
    text = str({"descr": "<f4", "fortran_order": False, "shape": shape}).encode()
    start = np.lib.format.magic(1, 0) + struct.pack("<H", _HEADER_BYTES - 10)
    return start + text.ljust(_HEADER_BYTES - 11) + b"\n"


def _crc_with_zeros(data: bytes, zeros: int) -> int:
    crc, block = zlib.crc32(data), bytes(_BLOCK)
    for _ in range(zeros // _BLOCK):
        crc = zlib.crc32(block, crc)
    return zlib.crc32(bytes(zeros % _BLOCK), crc)
