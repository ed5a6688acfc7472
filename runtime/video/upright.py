"""Turns decoded frames into upright images, as their file asks."""

from __future__ import annotations

from typing import Any, cast

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

_HD_HW = (720, 1280)
_UNSPECIFIED = 2  # FFmpeg's AVCOL_SPC_UNSPECIFIED
_AS_IT_IS = np.eye(2, dtype=np.int32)


def display_matrix(decoded: av.VideoFrame) -> NDArray[np.int32]:
    """Returns `[[a, b], [c, d]]`: a decoded point (x, y) is shown at (ax + cy, bx + dy), y downwards."""
    data: Any = decoded.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _AS_IT_IS
    matrix = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]
    return matrix if matrix.any() else _AS_IT_IS


def is_turned(matrix: NDArray[np.int32]) -> bool:
    """Whether a display matrix turns columns into rows."""
    along, across = np.abs(np.diag(matrix).astype(float)).sum(), np.abs(np.diag(matrix[::-1]).astype(float)).sum()
    return bool(across > along)


class Upright:
    """Turns decoded frames into upright BGR images. Use one object for all frames of a source."""

    def __init__(self) -> None:
        # A frame's own reformatter would start threads that last as long as the frame.
        self._reformatter = VideoReformatter()

    def __call__(self, decoded: av.VideoFrame, matrix: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Returns uint8 `(h, w, 3)`: a frame turned and mirrored as its matrix asks, to the nearest quarter turn."""
        # Colour planes are resized bicubically, as in OpenCV: PyAV's default is up to 125 levels off in 10-bit video.
        converted = self._reformatter.reformat(
            decoded,
            format="bgr24",
            interpolation="BICUBIC",
            src_colorspace=_matrix_of(decoded),
            dst_colorspace=Colorspace.DEFAULT,  # PyAV 15 uses src_colorspace only if this one differs
            src_color_range=decoded.color_range,
        )
        image = cast("NDArray[np.uint8]", converted.to_ndarray())
        turned = is_turned(matrix)
        (a, b), (c, d) = matrix.tolist()
        shown_x, shown_y = (c, b) if turned else (a, d)
        if turned:
            image = image.transpose(1, 0, 2)
        return np.ascontiguousarray(image[:: -1 if shown_y < 0 else 1, :: -1 if shown_x < 0 else 1])


def _matrix_of(decoded: av.VideoFrame) -> Colorspace | None:
    """Returns BT.709 for a frame of at least 720 rows or 1280 columns that names no matrix between YUV and colours.

    Players do the same. None stands for the matrix that the frame names, or else BT.601.
    """
    is_hd = decoded.height >= _HD_HW[0] or decoded.width >= _HD_HW[1]
    return Colorspace.ITU709 if decoded.colorspace == _UNSPECIFIED and is_hd and not decoded.format.is_rgb else None
