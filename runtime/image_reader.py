"""Images as the frames of a video."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import cv2
import numpy as np

from salema.runtime.errors import VideoError, reason
from salema.runtime.reader import Frame
from salema.runtime.sources import JPEG_START, PNG_START

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # our own sentences say what is wrong
_ENDS = {PNG_START: b"IEND", JPEG_START: b"\xff\xd9"}


class ImageReader:
    """Reads images one after the other; a `Reader`.

    Args:
        paths: the images, in order; at least one.
        name: what to call them in messages.
        rate: frames per second.

    Raises:
        VideoError: the first image is missing or can't be read.
    """

    is_live = False
    sound: Path | None = None
    has_lost_sound = False
    aspect = Fraction(1)

    def __init__(self, paths: Sequence[Path], name: str, rate: Fraction) -> None:
        self.name, self.rate, self._paths = name, rate, paths
        self.time_base = 1 / rate
        self.frame_count: int | None = len(paths)
        self.height, self.width = read_image(paths[0]).shape[:2]

    def __iter__(self) -> Iterator[Frame]:
        """See `Reader`.

        Raises:
            VideoError: an image is missing or can't be read.
        """
        shape: tuple[int, ...] = ()
        for index, path in enumerate(self._paths):
            image = read_image(path)
            yield Frame(image, index, 1, starts_anew=image.shape != shape)
            shape = image.shape

    def close(self) -> None:
        """See `Reader`."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Reads an image as uint8 BGR `(h, w, 3)`; grey becomes BGR, and transparency is left out.

    Raises:
        VideoError: it is none, or damaged.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)  # imread takes no name that is not in the system's encoding
    except OSError as error:
        raise VideoError(f"{path}: can't be read ({reason(error)})") from error
    if breaks_off(data):
        raise VideoError(f"{path}: breaks off; copy or make it anew")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    except cv2.error:  # more pixels than OpenCV takes
        image = None
    if image is None:
        raise VideoError(f"{path}: can't be read as an image")
    return image.astype(np.uint8, copy=False)


def breaks_off(data: NDArray[np.uint8]) -> bool:
    """Whether the bytes of an image are a PNG or JPEG without its end: OpenCV makes up the rest, and grumbles."""
    whole = data.tobytes().rstrip(b"\0")  # some programs fill up blocks
    rest = whole[len(whole) // 2 :]  # a preview's end is nearer the start
    return any(whole.startswith(begins) and ends not in rest for begins, ends in _ENDS.items())
