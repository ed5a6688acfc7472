"""Decoded frames as images, turned as their file asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    import av
    from numpy.typing import NDArray

_AS_IT_IS = np.eye(2, dtype=np.int32)


def display_matrix(decoded: av.VideoFrame) -> NDArray[np.int32]:
    """Returns `[[a, b], [c, d]]`: a decoded point (x, y) is shown at (ax + cy, bx + dy), y downwards."""
    data: Any = decoded.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _AS_IT_IS
    matrix = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]
    return matrix if matrix.any() else _AS_IT_IS


def is_turned(matrix: NDArray[np.int32]) -> bool:
    """Whether a display matrix makes rows of columns."""
    along, across = np.abs(np.diag(matrix).astype(float)).sum(), np.abs(np.diag(matrix[::-1]).astype(float)).sum()
    return bool(across > along)


def upright(decoded: av.VideoFrame, matrix: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Turns and mirrors a decoded frame as its display matrix asks, to the nearest quarter turn."""
    # Bicubic where colour planes are resized, as OpenCV does it: PyAV's own choice is up to 125 off in 10-bit video.
    image = cast("NDArray[np.uint8]", decoded.to_ndarray(format="bgr24", interpolation="BICUBIC"))
    turned = is_turned(matrix)
    (a, b), (c, d) = matrix.tolist()
    shown_x, shown_y = (c, b) if turned else (a, d)
    if turned:
        image = image.transpose(1, 0, 2)
    return np.ascontiguousarray(image[:: -1 if shown_y < 0 else 1, :: -1 if shown_x < 0 else 1])
