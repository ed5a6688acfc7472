"""The boxes of an MP4 file (ISO/IEC 14496-12), as far as FFmpeg leaves them to us."""

from __future__ import annotations

import io
import shutil
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LARGE, _TO_THE_END = 1, 0  # sizes with another meaning: 64 bits follow; the rest of the file
_TO_OFFSETS = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}  # the boxes that lead to tables of offsets
_OFFSETS = {b"stco": "I", b"co64": "Q"}  # 32 and 64 bits each
_MOST_32_BIT = 2**32 - 1


class _Box(NamedTuple):
    kind: bytes
    start: int
    content: int
    end: int


def move_index_to_front(path: Path) -> None:
    """Puts the index (`moov`) of a whole file before its pictures, so that browsers start before all has come.

    Nothing happens where it is there already, where offsets would not fit, or where there is no room for a second file.
    """
    with path.open("rb") as file:
        boxes = {box.kind: box for box in _boxes(file, 0, path.stat().st_size)}
        ftyp, moov, mdat = (boxes.get(kind) for kind in (b"ftyp", b"moov", b"mdat"))
        if ftyp is None or moov is None or mdat is None or moov.start < mdat.start:
            return
        file.seek(moov.start)
        index = bytearray(file.read(moov.end - moov.start))
        if not _shift_offsets(index, ftyp.end + len(index) - mdat.start):
            return
        other = path.with_name(f"{path.name}.front")
        try:
            with other.open("wb") as target:
                file.seek(0)
                target.write(file.read(ftyp.end) + index)
                file.seek(mdat.start)
                _copy(file, target, mdat.end - mdat.start)
            other.replace(path)
        except OSError:
            pass  # no room for a second file
        finally:
            with suppress(OSError):
                other.unlink(missing_ok=True)  # not there any more if all went well


def _copy(source: BinaryIO, target: BinaryIO, length: int) -> None:
    """Copies to the end, which is a little more than asked for, and cuts that off."""
    end = target.tell() + length
    shutil.copyfileobj(source, target, 1 << 20)
    target.truncate(end)


def _shift_offsets(index: bytearray, by: int) -> bool:
    """Moves every chunk's offset in a `moov` box; returns whether they all fit."""
    for box in _offset_tables(io.BytesIO(index), 0, len(index)):
        (count,) = struct.unpack_from(">I", index, box.content + 4)  # after version and flags
        letter = _OFFSETS[box.kind]
        layout = struct.Struct(f">{count}{letter}")
        offsets = [offset + by for offset in layout.unpack_from(index, box.content + 8)]
        if letter == "I" and max(offsets, default=0) > _MOST_32_BIT:
            return False
        layout.pack_into(index, box.content + 8, *offsets)
    return True


def _offset_tables(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    for box in list(_boxes(file, start, end)):
        if box.kind in _TO_OFFSETS:
            yield from _offset_tables(file, box.content, box.end)
        elif box.kind in _OFFSETS:
            yield box


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    """Yields the boxes between two places that are there to their end."""
    while True:
        file.seek(start)
        header = file.read(8)
        if len(header) < 8 or start + 8 > end:  # noqa: PLR2004 - 32 bits of size, four letters
            return
        size, kind = struct.unpack(">I4s", header)
        content = start + 8
        if size == _LARGE:
            size, content = int.from_bytes(file.read(8), "big"), start + 16
        if size == _TO_THE_END or start + size > end or size < content - start:
            return
        yield _Box(kind, start, content, start + size)
        start += size
