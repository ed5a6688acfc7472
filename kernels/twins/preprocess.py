"""NumPy twin of the kernel `preprocess`, and the tables that it reads: OpenCV's `INTER_AREA` on uint8, to the bit.

Sources: OpenCV 4 and 5, `modules/imgproc/src/resize.cpp` (`computeResizeAreaTab`, `hal::resize`). Its three ways
to resize with `INTER_AREA` are the three modes here. Built for x86 it does not fuse multiply and add, and neither does
this; built for ARM it may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from salema.kernels.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

WHOLE = "WHOLE"  # both axes shrink by whole numbers, 1 among them: sums of integers
AREA = "AREA"  # both axes shrink, or one keeps its size: float32 sums of weighted pixels
LINEAR = "LINEAR"  # an axis grows: two pixels an axis, weights of 11 bits
MODES = (WHOLE, AREA, LINEAR)

_WEIGHT_ONE = 2048  # of `LINEAR`
_SKIPPED = 1e-3  # of a source pixel: a smaller share of one is left out

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class AxisTable(Generic[T]):
    """What each output row, or column, is made of.

    Attributes:
        spans: int32 `[n, 2]`, first and last source row or column; `LINEAR` reads these two alone.
        weights: float32 `[n, taps]`, weights from the first one on, zero past the last; not read by `WHOLE`.
    """

    spans: T
    weights: T


@dataclass(frozen=True)
class ResizeTables(Generic[T]):
    """How frames of one size become frames of another; `T` is an array of NumPy's, or one on a device.

    Attributes:
        mode: one of `MODES`.
        source_size_hw: rows and columns of the source.
        network_size_hw: rows and columns of the output.
        rows: for each output row.
        columns: for each output column.
    """

    mode: str
    source_size_hw: tuple[int, int]
    network_size_hw: tuple[int, int]
    rows: AxisTable[T]
    columns: AxisTable[T]

    def placed(self, place: Callable[[T], U]) -> ResizeTables[U]:
        """Returns the same tables elsewhere, each array as `place` returns it, which is how they get to a device."""
        rows = AxisTable(place(self.rows.spans), place(self.rows.weights))
        columns = AxisTable(place(self.columns.spans), place(self.columns.weights))
        return ResizeTables(self.mode, self.source_size_hw, self.network_size_hw, rows, columns)


def resize_tables(source_size_hw: tuple[int, int], network_size_hw: tuple[int, int]) -> ResizeTables[NDArray[Any]]:
    """Returns the tables for a pair of sizes: the same for the same sizes, so keep them.

    Args:
        source_size_hw: rows and columns of the source.
        network_size_hw: rows and columns of the output.

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
    """Source pixels of an output pixel. OpenCV inverts twice, which decides near whole numbers: 49 becomes less."""
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
    whole = np.minimum(np.ceil(begin).astype(int), last)  # the first source pixel that lies inside altogether
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


def preprocess(source: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Resizes a frame as `cv2.resize` does with `INTER_AREA`.

    Args:
        source: uint8 BGR `[h, w, 3]`.
        out: uint8 BGR `[H, W, 3]`, written.
    """
    tables = resize_tables((source.shape[0], source.shape[1]), (out.shape[0], out.shape[1]))
    out[:] = {WHOLE: _whole, AREA: _area, LINEAR: _linear}[tables.mode](source, tables)


def _whole(frame: NDArray[np.uint8], tables: ResizeTables[NDArray[Any]]) -> NDArray[np.uint8]:
    height, width = tables.network_size_hw
    down, across = frame.shape[0] // height, frame.shape[1] // width
    total = frame.reshape(height, down, width, across, 3).sum(axis=(1, 3), dtype=np.uint32)
    if (down, across) == (2, 2):
        return _to_bytes((total + 2) >> 2)  # halves go up here, and to even numbers below
    return _to_bytes(np.rint(total.astype(np.float32) * (np.float32(1) / np.float32(down * across))))


def _area(frame: NDArray[np.uint8], tables: ResizeTables[NDArray[Any]]) -> NDArray[np.uint8]:
    across = _weighted_sum(np.swapaxes(frame, 0, 1), tables.columns)
    return _to_bytes(np.rint(_weighted_sum(np.swapaxes(across, 0, 1), tables.rows)))


def _weighted_sum(values: NDArray[Any], axis: AxisTable[NDArray[Any]]) -> NDArray[np.float32]:
    """Sums along the first axis, tap by tap: float32 additions in OpenCV's order."""
    first, last = axis.spans.T
    total = np.zeros((len(first), *values.shape[1:]), np.float32)
    for tap in range(axis.weights.shape[1]):
        total += values[np.minimum(first + tap, last)] * axis.weights[:, tap, None, None]
    return total


def _linear(frame: NDArray[np.uint8], tables: ResizeTables[NDArray[Any]]) -> NDArray[np.uint8]:
    left, right = tables.columns.spans.T
    across = tables.columns.weights.astype(np.int32)[:, :, None]
    down = tables.rows.weights.astype(np.int32)[:, :, None, None]
    lines = [frame[rows] for rows in tables.rows.spans.T]
    sums = [line[:, left] * across[:, 0] + line[:, right] * across[:, 1] for line in lines]
    shares = [(down[:, k] * (total >> 4)) >> 16 for k, total in enumerate(sums)]
    return _to_bytes((shares[0] + shares[1] + 2) >> 2)


def _to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    clipped: NDArray[np.uint8] = np.clip(values, 0, 255).astype(np.uint8)
    return clipped
