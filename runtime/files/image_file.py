"""Image files: each is read whole, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.runtime.errors import SalemaError
from salema.runtime.files.bounded_files import MOST_IMAGE_BYTES, read_file
from salema.runtime.files.image_size import JPEG_START, PNG_START, image_size_wh

MOST_PIXELS = 1 << 27  # 16K (15360x8640) has 133 million; OpenCV's own limit of 2^30 takes 3 GB and more

_ENDS = {PNG_START: b"IEND", JPEG_START: b"\xff\xd9"}


def silence_opencv() -> None:
    """Keeps OpenCV from printing warnings of several lines; our own messages say what is wrong."""
    # OpenCV 5 has it in another place than OpenCV 4
    set_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel
    set_level(0)


silence_opencv()


def decode_file(path: Path, flags: int, kind: type[SalemaError]) -> NDArray[np.generic]:
    """Reads an image; `flags` are those of OpenCV's `imdecode`.

    Raises:
        SalemaError: it is not an ordinary file, not an image of a known format, damaged, or too big; the error's class
            is `kind`.
    """
    # Not imread: it needs a name in the system's encoding.
    return decode_image(path, read_file(path, MOST_IMAGE_BYTES, kind), flags, kind)


def decode_image(path: Path, data: bytes, flags: int, kind: type[SalemaError]) -> NDArray[np.generic]:
    """Decodes the bytes of an image file; see `decode_file`."""
    if breaks_off(data):
        raise kind(f"{path}: breaks off; copy or make it anew")
    size_wh = image_size_wh(data)
    if size_wh is None:
        raise kind(f"{path}: can't be read as an image; give a whole PNG, JPEG, BMP, TIFF or WebP")
    check_pixels(path, size_wh, kind)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # OpenCV's own limits: no side over 2^20
        image = None
    if image is None:
        raise kind(f"{path}: can't be read as an image; copy or make it anew")
    return image


def check_pixels(path: Path, size_wh: tuple[int, int], kind: type[SalemaError]) -> None:
    """Refuses an image whose declared size would fill the memory.

    Raises:
        SalemaError: it has more than `MOST_PIXELS`; the error's class is `kind`.
    """
    width, height = size_wh
    if width * height > MOST_PIXELS:
        most = f"{MOST_PIXELS / 1e6:.0f} million pixels"
        raise kind(f"{path}: is {width}x{height} by its header, and {most} are the most; make it smaller")


def breaks_off(data: bytes) -> bool:
    """Whether the bytes are a PNG or JPEG without its end. OpenCV would make up the rest, and print a warning."""
    size = len(data.rstrip(b"\0"))  # some programs fill the last block with zeros
    half = size // 2  # a preview's end lies in the first half
    return any(data.startswith(begins) and data.find(ends, half) < 0 for begins, ends in _ENDS.items())
