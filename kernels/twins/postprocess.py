"""NumPy twins of the kernels that make pictures: the same names and arguments, the same roundings, to the bit.

The arithmetic is that of `runtime.postprocess` and of OpenCV 4 and 5 for 8-bit images: `resize` with `INTER_LINEAR`
and `addWeighted`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

View = Literal["map8", "map", "overlay"]
WEIGHT_ONE = 1 << 11  # of the resize: weights have 11 bits after the point


def linear_tables(
    source_hw: tuple[int, int], target_hw: tuple[int, int]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Makes the tables of OpenCV's linear resize: what each row and each column of the target reads.

    Args:
        source_hw: sizes of the map, each at least 1.
        target_hw: sizes of the picture.

    Returns:
        int32 `[h, 4]` for rows and `[w, 4]` for columns: first index, second index, weight of the first, weight of
        the second, of `WEIGHT_ONE`.
    """
    (rows_first, rows_part), (columns_first, columns_part) = (
        _positions(source, target) for source, target in zip(source_hw, target_hw, strict=True)
    )
    outside = (columns_first < 0) | (columns_first >= source_hw[1] - 1)
    columns_part[outside] = 0  # OpenCV does so for columns only; for rows it reads the edge twice, with both weights
    return _table(rows_first, rows_part, source_hw[0]), _table(columns_first, columns_part, source_hw[1])


def _positions(source: int, target: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Where target elements lie in the source: the element before, and the part of the way to the next one."""
    scale = 1 / (target / source) if target else 1.0  # twice divided, as OpenCV does
    exact = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(exact)
    return first.astype(np.int32), exact - first


def _table(first: NDArray[np.int32], part: NDArray[np.float32], source: int) -> NDArray[np.int32]:
    weights = [np.rint(weight * np.float32(WEIGHT_ONE)) for weight in (1 - part, part)]
    columns = [first.clip(0, source - 1), (first + 1).clip(0, source - 1), *weights]
    return np.stack(columns, axis=-1).astype(np.int32)


def map_range(saliency: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Finds each map's minimum and maximum.

    Args:
        saliency: float32 `[N, H, W]`.
        out: float32 `[N, 2]`: minimum and maximum, both NaN where the map holds a NaN. A zero is positive.
    """
    limits = np.stack([saliency.min(axis=(1, 2)), saliency.max(axis=(1, 2))], axis=-1)
    out[:] = np.where(np.isnan(limits), np.float32(np.nan), limits + np.float32(0))  # one NaN of many; -0 + 0 is 0


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
        limits: float32 `[2]`: the map's minimum and maximum. Where not minimum < maximum, the map is drawn as zeros.
        out: uint8 `[H, W]` for `map8`, else BGR `[h, w, 3]`.
        view: what to draw.
        frame: uint8 as `out`, what an overlay lies over.
        colours: uint8 `[256, 3]`, BGR of each level of the map, for an overlay.
        opacity: of the colours, 0 to 1.
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
    """Resizes `[H, W, C]` as OpenCV does: columns exactly, then rows with 4 bits less and two roundings down."""
    rows, columns = linear_tables((small.shape[0], small.shape[1]), (size_hw[0], size_hw[1]))
    wide = small.astype(np.int32)
    wide = wide[:, columns[:, 0]] * columns[:, 2, None] + wide[:, columns[:, 1]] * columns[:, 3, None]
    wide >>= 4
    first, second = (wide[rows[:, i]] * rows[:, i + 2, None, None] >> 16 for i in range(2))
    return (first + second + 2 >> 2).astype(np.uint8)


def _blend(frame: NDArray[np.uint8], colour: NDArray[np.uint8], opacity: float) -> NDArray[np.uint8]:
    """Float32 with a fused multiply-add, which has one rounding where a product and a sum have two."""
    coloured = (colour * np.float32(opacity)).astype(np.float64)  # rounded to float32 before
    fused = (frame * np.float64(np.float32(1 - opacity)) + coloured).astype(np.float32)
    return np.rint(fused).astype(np.uint8)
