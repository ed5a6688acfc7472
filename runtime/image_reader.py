"""Images as the frames of a video."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import cv2
import numpy as np

from salema.runtime.errors import VideoError
from salema.runtime.image_file import decode_file
from salema.runtime.reader import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from salema.runtime.sound import Track


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
    sound: Track | None = None
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
        VideoError: it is none, damaged, too big, or no ordinary file.
    """
    image = decode_file(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, VideoError)
    return image.astype(np.uint8, copy=False)
