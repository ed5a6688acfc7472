"""Reads the size that an image's header declares, without decoding the image, which may be a decompression bomb."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xDA)}  # JPEG's markers without a length and content
_FRAME_STARTS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG's markers whose content holds the size
_SCAN_START = 0xDA
_NO_FILLING = re.compile(rb"[^\xff]")  # any number of 0xff may stand before a marker
_MOST_JPEG_MARKERS = 4096  # those with a profile have a few hundred; a crafted file millions
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_MOST_TIFF_FIELDS = 4096  # libtiff refuses more
_TIFF_NUMBERS = {3: "H", 4: "I", 16: "Q"}  # a field's type: short, long, or BigTIFF's 64-bit number


def image_size_wh(data: bytes) -> tuple[int, int] | None:
    """Returns the width and height that a PNG, JPEG, BMP, TIFF, WebP or GIF declares; None if it is none of these."""
    reader = next((read for starts, read in _READERS.items() if data.startswith(starts)), None)
    try:
        return reader(data) if reader else None
    except (struct.error, IndexError):  # the header is cut off
        return None


def _pair(data: bytes, form: str, at: int) -> tuple[int, int]:
    width, height = struct.unpack_from(form, data, at)
    return abs(width), abs(height)  # a BMP stored from the top down has a negative height


def _png(data: bytes) -> tuple[int, int] | None:
    return _pair(data, ">II", 16) if data[12:16] == b"IHDR" else None


def _gif(data: bytes) -> tuple[int, int]:
    return _pair(data, "<HH", 6)


def _bmp(data: bytes) -> tuple[int, int]:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    return _pair(data, "<HH" if header_bytes == 12 else "<ii", 18)  # noqa: PLR2004 - OS/2's


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    for _ in range(_MOST_JPEG_MARKERS):
        at = data.find(b"\xff", at)
        found = _NO_FILLING.search(data, at) if at >= 0 else None
        if found is None:
            return None
        marker, at = data[found.start()], found.end()
        if marker in _FRAME_STARTS:
            height, width = _pair(data, ">HH", at + 3)
            return width, height
        if marker == _SCAN_START:
            return None
        if marker and marker not in _WITHOUT_LENGTH:
            at += struct.unpack_from(">H", data, at)[0]
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16] if data[8:12] == b"WEBP" else None
    if kind == b"VP8 ":
        width, height = _pair(data, "<HH", 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return None


def _tiff(data: bytes) -> tuple[int, int] | None:
    fields: dict[int, int] = {}
    for tag, value in _tiff_numbers(data):
        fields[tag] = max(value, fields.get(tag, 0))
    return (fields[_TIFF_WIDTH], fields[_TIFF_HEIGHT]) if {_TIFF_WIDTH, _TIFF_HEIGHT} <= fields.keys() else None


def _tiff_numbers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields tag and number of each field in the first directory that holds a number."""
    order, is_big = ("<" if data[:1] == b"I" else ">"), b"+" in data[2:4]
    (at,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
    (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, at)
    at, field_bytes, value_at = at + (8 if is_big else 2), (20 if is_big else 12), (12 if is_big else 8)
    for start in range(at, at + min(count, _MOST_TIFF_FIELDS) * field_bytes, field_bytes):
        tag, form = struct.unpack_from(order + "HH", data, start)
        if form in _TIFF_NUMBERS:
            yield tag, struct.unpack_from(order + _TIFF_NUMBERS[form], data, start + value_at)[0]


_READERS: dict[tuple[bytes, ...], Callable[[bytes], tuple[int, int] | None]] = {
    (PNG_START,): _png,
    (JPEG_START,): _jpeg,
    (b"BM",): _bmp,
    (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"): _tiff,
    (b"RIFF",): _webp,
    (b"GIF87a", b"GIF89a"): _gif,
}
