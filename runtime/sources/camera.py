"""Reads cameras through OpenCV."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np

from salema.runtime.errors import VideoError
from salema.runtime.files.image_file import silence_opencv
from salema.runtime.sources.frames import GAP_S, Frame, SilentReader

_USUAL_RATE = 30


class CameraReader(SilentReader):
    """A `Reader` of a camera. A frame's time is when it came.

    Args:
        camera: its number, or a path such as `/dev/video0`.

    Raises:
        VideoError: there is no such camera, or it gives no picture.
    """

    frame_count: int | None = None
    is_live = True
    time_base = Fraction(1, 1000)

    def __init__(self, camera: int | str) -> None:
        self.name = f"camera {camera}" if isinstance(camera, int) else camera
        silence_opencv()
        self._capture = cv2.VideoCapture(camera)
        self._reading, self._closed = threading.Lock(), False
        has_picture, first = self._capture.read()
        if not has_picture:
            self._capture.release()
            raise VideoError(f"{self.name}: no such camera, or it gives no picture; is another program using it?")
        self._first: np.typing.NDArray[np.uint8] | None = np.asarray(first, np.uint8)
        self.height, self.width = first.shape[:2]
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = Fraction(rate if 0 < rate < 1000 else _USUAL_RATE).limit_denominator(1001)  # noqa: PLR2004

    def __iter__(self) -> Iterator[Frame]:
        usual = max(round(1000 / self.rate), 1)
        start, pts, waited_s, shape, image = time.monotonic(), -1, 0.0, (), self._first
        self._first = None
        while image is not None:
            pts = max(round(1000 * (time.monotonic() - start)), pts + 1)
            yield Frame(image, pts, usual, starts_anew=waited_s > GAP_S or image.shape != shape)
            shape, asked = image.shape, time.monotonic()
            with self._reading:
                if self._closed:
                    return
                has_picture, following = self._capture.read()
            waited_s = time.monotonic() - asked
            image = np.asarray(following, np.uint8) if has_picture else None
        raise VideoError(f"{self.name}: gives no more pictures; is it unplugged?")

    def close(self) -> None:
        """Closes the camera, unless another thread hangs reading it; then it stays open until the process ends."""
        self._closed = True
        if self._reading.acquire(timeout=0.2):
            self._capture.release()
            self._reading.release()
