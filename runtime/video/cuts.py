"""Finds cuts, where one shot ends and another begins."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

THRESHOLD = 27.0
LEAST_FRAMES = 15
_LONGER_SIDE = 256


class CutDetector:
    """PySceneDetect's `ContentDetector` with its defaults and `FlashFilter.Mode.SUPPRESS`, frame by frame.

    The score of a frame is the mean absolute difference to the frame before, of hue, saturation and value (of 180, 256
    and 256 levels), after a linear resize of a longer side above 256 to 256. A score of `THRESHOLD` or more is a cut,
    unless the last cut or the start lies fewer than `LEAST_FRAMES` frames back.

    https://www.scenedetect.com/docs/latest/api/detectors.html
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets the frames before."""
        self._before: NDArray[np.uint8] | None = None
        self._since = 0

    def is_cut(self, image_bgr: NDArray[np.uint8]) -> bool:
        """Takes the next frame, uint8 BGR `(h, w, 3)`; returns whether a new shot begins with it."""
        now = _to_hsv(image_bgr)
        before, self._before = self._before, now
        if before is None or before.shape != now.shape:
            self._since = 0
            return False
        self._since += 1
        score = float(cv2.absdiff(before, now).mean(dtype=np.float64))
        if score < THRESHOLD or self._since < LEAST_FRAMES:
            return False
        self._since = 0
        return True


def _to_hsv(image_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image_bgr.shape[:2]
    factor = max(width, height) / _LONGER_SIDE
    if factor > 1:
        size = (max(1, round(width / factor)), max(1, round(height / factor)))
        image_bgr = cast("NDArray[np.uint8]", cv2.resize(image_bgr, size, interpolation=cv2.INTER_LINEAR))
    return cast("NDArray[np.uint8]", cv2.cvtColor(image_bgr, cv2.COLOR_BGR2HSV))
