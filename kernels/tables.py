"""Resize tables for the kernels: which source rows and columns each output row and column is made of.

They equal OpenCV's to the bit. `resize_tables` is `INTER_AREA` on uint8, for `preprocess`; `linear_tables` is
`INTER_LINEAR`, for `postprocess`. Sources: OpenCV 4 and 5, `modules/imgproc/src/resize.cpp` (`computeResizeAreaTab`,
`hal::resize`). OpenCV has three ways to resize with `INTER_AREA`, which are the three modes here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from salema.kernels.errors import ArgumentError

WHOLE = "WHOLE"  # both axes shrink by whole numbers, or keep their size: sums of integers
AREA = "AREA"  # both axes shrink, or one keeps its size: float32 sums of weighted pixels
LINEAR = "LINEAR"  # an axis grows: two pixels per axis, weights of 11 bits
MODES = (WHOLE, AREA, LINEAR)

_WEIGHT_ONE = 1 << 11  # linear weights have 11 bits after the point
_SKIPPED = 1e-3  # a smaller share of a source pixel is left out

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class AxisTable(Generic[T]):
    """The source rows of each output row, or the source columns of each output column.

    Attributes:
        spans: int32 `[n, 2]`, first and last source row or column; `LINEAR` reads only these two.
        weights: float32 `[n, taps]`, weights from the first to the last, then zeros; not used by `WHOLE`.
    """

    spans: T
    weights: T


@dataclass(frozen=True)
class ResizeTables(Generic[T]):
    """Tables to resize frames; `T` is a NumPy array or an array on a device.

    `mode` is one of `MODES`. Sizes are rows and columns.
    """

    mode: str
    source_size_hw: tuple[int, int]
    network_size_hw: tuple[int, int]
    rows: AxisTable[T]
    columns: AxisTable[T]

    def placed(self, place: Callable[[T], U]) -> ResizeTables[U]:
        """Returns the same tables with each array passed through `place`, which copies it to a device."""
        rows = AxisTable(place(self.rows.spans), place(self.rows.weights))
        columns = AxisTable(place(self.columns.spans), place(self.columns.weights))
        return ResizeTables(self.mode, self.source_size_hw, self.network_size_hw, rows, columns)


def resize_tables(source_size_hw: tuple[int, int], network_size_hw: tuple[int, int]) -> ResizeTables[NDArray[Any]]:
    """Returns the tables for a pair of sizes. They depend on nothing else, so keep them.

    Raises:
        ArgumentError: a size is less than 1.
    """
    for name, size in (("source_size_hw", source_size_hw), ("network_size_hw", network_size_hw)):
        if min(size) < 1:
            raise ArgumentError(f"{name}: {size[0]} rows and {size[1]} columns given, at least 1 of each expected")
    axes = tuple(zip(source_size_hw, network_size_hw, strict=True))
    scales = [_scale(source, out) for source, out in axes]
    if min(scales) < 1:
        mode, make = LINEAR, _linear_axis
    elif all(abs(scale - round(scale)) < np.finfo(np.float64).eps for scale in scales):
        mode, make = WHOLE, _whole_axis
    else:
        mode, make = AREA, _area_axis
    rows, columns = (make(source, out) for source, out in axes)
    return ResizeTables(mode, source_size_hw, network_size_hw, rows, columns)


def _scale(source: int, out: int) -> float:
    """Returns the source pixels per output pixel. OpenCV divides twice, so that 49 becomes slightly less."""
    return 1.0 / (out / source)


def _whole_axis(source: int, out: int) -> AxisTable[NDArray[Any]]:
    taps = source // out
    first = np.arange(out) * taps
    return AxisTable(_spans(first, first + taps - 1), np.ones((out, 1), np.float32))


def _area_axis(source: int, out: int) -> AxisTable[NDArray[Any]]:
    scale = _scale(source, out)
    begin = np.arange(out) * scale
    end = begin + scale
    width = np.minimum(scale, source - begin)
    last = np.minimum(np.floor(end).astype(int), source - 1)
    whole = np.minimum(np.ceil(begin).astype(int), last)  # the first source pixel that is wholly inside
    has_left, has_right = whole - begin > _SKIPPED, end - last > _SKIPPED
    spans = _spans(whole - has_left, last - ~has_right)
    index = spans[:, :1] + np.arange((spans[:, 1] - spans[:, 0]).max() + 1)
    left, right = (whole - begin) / width, np.minimum(np.minimum(end - last, 1.0), width) / width
    weights = np.where(index < whole[:, None], left[:, None], (1.0 / width)[:, None])
    weights = np.where(index == last[:, None], right[:, None], weights)
    return AxisTable(spans, np.where(index <= spans[:, 1:], weights, 0).astype(np.float32))


def _linear_axis(source: int, out: int) -> AxisTable[NDArray[Any]]:
    first = np.floor(np.arange(out) * _scale(source, out)).astype(int)
    second = (np.arange(1, out + 1) - (first + 1) * (out / source)).astype(np.float32)
    second = np.where(second <= 0, np.float32(0), second - np.floor(second))
    weights = np.stack([np.float32(1) - second, second], axis=1) * np.float32(_WEIGHT_ONE)
    spans = _spans(np.minimum(first, source - 1), np.minimum(first + 1, source - 1))
    return AxisTable(spans, np.rint(weights))


def _spans(first: NDArray[Any], last: NDArray[Any]) -> NDArray[np.int32]:
    return np.stack([first, last], axis=1).astype(np.int32)


@dataclass(frozen=True)
class LinearTables(Generic[T]):
    """Tables to resize maps to pictures; `T` is a NumPy array or an array on a device.

    Attributes:
        rows: int32 `[h, 4]`, for each row: first index, second index, weight of the first, weight of the second. The
            weights add up to 2048.
        columns: int32 `[w, 4]`, the same for each column.
        source_hw: rows and columns of the map that they were made for.
    """

    rows: T
    columns: T
    source_hw: tuple[int, int]

    def placed(self, place: Callable[[T], U]) -> LinearTables[U]:
        """Returns the same tables with each array passed through `place`."""
        return LinearTables(place(self.rows), place(self.columns), self.source_hw)


def linear_tables(source_hw: tuple[int, int], target_hw: tuple[int, int]) -> LinearTables[NDArray[np.int32]]:
    """Returns the tables of OpenCV's linear resize for a pair of sizes.

    A map has at least one row and one column.
    """
    (rows_first, rows_part), (columns_first, columns_part) = (
        _positions(source, target) for source, target in zip(source_hw, target_hw, strict=True)
    )
    outside = (columns_first < 0) | (columns_first >= source_hw[1] - 1)
    columns_part[outside] = 0  # as OpenCV does, for columns only: for rows it reads the edge twice, with both weights
    rows, columns = _table(rows_first, rows_part, source_hw[0]), _table(columns_first, columns_part, source_hw[1])
    return LinearTables(rows, columns, source_hw)


def _positions(source: int, target: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Returns for each target element the source element before it, and its distance from that, 0 to 1."""
    scale = 1 / (target / source) if target else 1.0  # divided twice, as in OpenCV
    exact = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(exact)
    return first.astype(np.int32), exact - first


def _table(first: NDArray[np.int32], part: NDArray[np.float32], source: int) -> NDArray[np.int32]:
    weights = [np.rint(weight * np.float32(_WEIGHT_ONE)) for weight in (1 - part, part)]
    columns = [first.clip(0, source - 1), (first + 1).clip(0, source - 1), *weights]
    return np.stack(columns, axis=-1).astype(np.int32)
