"""NumPy twin of the kernel `preprocess`: OpenCV's `INTER_AREA` on uint8, to the bit.

It does not fuse multiply and add, as OpenCV on x86 does not; on ARM OpenCV may.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from salema.kernels.tables import AREA, LINEAR, WHOLE, AxisTable, ResizeTables, resize_tables


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
        return _to_bytes((total + 2) >> 2)  # rounds halves up; rint below rounds them to even
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
