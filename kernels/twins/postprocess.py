"""NumPy twins of the kernels `map_range` and `postprocess`, equal to the bit.

The arithmetic is that of `runtime.postprocess` and of OpenCV 4 and 5 for 8-bit images: `resize` with `INTER_LINEAR`
and `addWeighted`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from salema.kernels.ops.postprocess import View
from salema.kernels.tables import linear_tables


def map_range(saliency: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Writes each map's minimum and maximum.

    Args:
        saliency: float32 `[N, H, W]`.
        out: float32 `[N, 2]`: minimum and maximum, both NaN if the map holds a NaN. A zero is positive.
    """
    limits = np.stack([saliency.min(axis=(1, 2)), saliency.max(axis=(1, 2))], axis=-1)
    out[:] = np.where(np.isnan(limits), np.float32(np.nan), limits + np.float32(0))  # always the same NaN; -0 + 0 is 0


def postprocess(
    saliency: NDArray[np.float32],
    limits: NDArray[np.float32],
    out: NDArray[np.uint8],
    *,
    view: View,
    frame: NDArray[np.uint8] | None = None,
    colours: NDArray[np.uint8] | None = None,
    opacity: float = 0.5,
) -> None:
    """Draws a map: `map8` at its own size, `map` in grey at the picture's, `overlay` in colours over the frame.

    Args:
        saliency: float32 `[H, W]`.
        limits: float32 `[2]`: the map's minimum and maximum. Unless minimum < maximum, the map is drawn as zeros.
        out: uint8 `[H, W]` for `map8`, else BGR `[h, w, 3]`.
        view: what to draw.
        frame: uint8, of `out`'s shape: the picture under an overlay.
        colours: uint8 `[256, 3]`: BGR for each level of the map, for an overlay.
        opacity: opacity of the colours, 0 to 1.
    """
    grey = _levels(saliency, limits)
    if view == "map8":
        out[:] = grey
        return
    large = _resize(grey[:, :, None] if colours is None else colours[grey], out.shape[:2])
    large = np.repeat(large, 3, axis=2) if frame is None else _blend(frame, large, opacity)
    out[:] = large


def _levels(saliency: NDArray[np.float32], limits: NDArray[np.float32]) -> NDArray[np.uint8]:
    low, high = limits
    if not high > low:
        return np.zeros(saliency.shape, np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities: NaN becomes 0
        scaled = np.floor((saliency - low) / (high - low) * np.float32(255) + np.float32(0.5))
    return np.where(scaled > 0, scaled.clip(0, 255), 0).astype(np.uint8)


def _resize(small: NDArray[np.uint8], size_hw: tuple[int, ...]) -> NDArray[np.uint8]:
    """Resizes `[H, W, C]` as OpenCV does: columns exactly, then rows with 4 bits less, rounding down twice."""
    tables = linear_tables((small.shape[0], small.shape[1]), (size_hw[0], size_hw[1]))
    rows, columns = tables.rows, tables.columns
    wide = small.astype(np.int32)
    wide = wide[:, columns[:, 0]] * columns[:, 2, None] + wide[:, columns[:, 1]] * columns[:, 3, None]
    wide >>= 4
    first, second = (wide[rows[:, i]] * rows[:, i + 2, None, None] >> 16 for i in range(2))
    return (first + second + 2 >> 2).astype(np.uint8)


def _blend(frame: NDArray[np.uint8], colour: NDArray[np.uint8], opacity: float) -> NDArray[np.uint8]:
    """Computes in float32 with a fused multiply-add, which rounds once instead of twice."""
    coloured = (colour * np.float32(opacity)).astype(np.float64)  # rounded to float32 first
    fused = (frame * np.float64(np.float32(1 - opacity)) + coloured).astype(np.float32)
    return np.rint(fused).astype(np.uint8)
