"""From a camera's or decoder's frame to what the graph takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from salema.runtime.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BGR = (3, 3)  # dimensions, channels


def to_network_size(frame_bgr: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resizes a frame as the published code does, with OpenCV's `INTER_AREA`.

    Args:
        frame_bgr: uint8 `(h, w, 3)` of any size.
        height: rows of the network's input.
        width: columns of the network's input.

    Returns:
        uint8 `(height, width, 3)`, BGR.

    Raises:
        UsageError: the frame is not uint8, or not of three channels, or empty.
    """
    check_frame(frame_bgr)
    if frame_bgr.shape[:2] == (height, width):
        return frame_bgr
    return cast("NDArray[np.uint8]", cv2.resize(frame_bgr, (width, height), interpolation=cv2.INTER_AREA))


def check_frame(frame_bgr: NDArray[np.uint8]) -> None:
    """Refuses what is no frame.

    Raises:
        UsageError: it is not uint8, or not of three channels, or empty.
    """
    if not isinstance(frame_bgr, np.ndarray):
        raise UsageError(f"a frame is {type(frame_bgr).__name__}, not an array; did the camera or file end?")
    if frame_bgr.dtype != np.uint8 or (frame_bgr.ndim, frame_bgr.shape[-1]) != _BGR or not frame_bgr.size:
        raise UsageError(
            f"a frame of dtype {frame_bgr.dtype} and shape {frame_bgr.shape} given; uint8 BGR (h, w, 3) expected"
        )
