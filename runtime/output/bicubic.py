"""Resizes maps as MATLAB's `imresize` does, which DHF1K's benchmark uses."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Map = NDArray[Any]

_REACH = 2  # of the cubic kernel, in pixels
_ROWS = 16  # at a time: a product of that size stays on one thread of OpenBLAS


def matlab_bicubic(values: Map, size_hw: tuple[int, int]) -> NDArray[np.float64]:
    """Resizes a map `(h, w)` to float64 `(H, W)` as MATLAB's `imresize` does with doubles.

    The kernel is Keys' with a = -0.5, widened where an axis shrinks; edges are mirrored. Nothing is rounded, and values
    may overshoot, also below 0. (Octave doesn't normalise the weights when it shrinks: if the factor is not whole, its
    values differ from MATLAB's by about 1 %.)
    """
    if not np.ptp(values) > 0:  # rounding errors of a flat map would look like a picture
        return np.full(size_hw, values.flat[0], np.float64)
    return _along_columns(_along_rows(values.astype(np.float64), size_hw[0]), size_hw[1])


def _along_rows(values: NDArray[np.float64], height: int) -> NDArray[np.float64]:
    if values.shape[0] == height:
        return values
    resized = np.empty((height, values.shape[1]))
    for rows, used, weights in _row_weights(values.shape[0], height):
        np.matmul(weights, values[used], out=resized[rows])
    return resized


def _along_columns(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    if values.shape[1] == width:
        return values
    resized = np.empty((values.shape[0], width))
    for columns, used, weights in _row_weights(values.shape[1], width):
        np.matmul(values[:, used], weights.T, out=resized[:, columns])
    return resized


@functools.lru_cache(maxsize=32)
def _row_weights(old: int, new: int) -> tuple[tuple[slice, slice, NDArray[np.float64]], ...]:
    """Returns for each block of new rows: the block, the old rows it reads, and their weights."""
    scale = new / old
    shrunk = min(scale, 1.0)
    centres = (np.arange(new) + 0.5) / scale - 0.5
    reach = _REACH / shrunk
    taken = np.floor(centres - reach)[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)
    weights = _cubic((centres[:, None] - taken) * shrunk)
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = taken.astype(np.intp) % (2 * old)
    mirrored = np.minimum(mirrored, 2 * old - 1 - mirrored)
    whole = np.zeros((new, old))
    np.add.at(whole, (np.arange(new)[:, None], mirrored), weights)
    blocks = []
    for first in range(0, new, _ROWS):
        block = whole[first : first + _ROWS]
        used = np.flatnonzero(block.any(axis=0))
        span = slice(int(used[0]), int(used[-1]) + 1)
        blocks.append((slice(first, first + len(block)), span, np.ascontiguousarray(block[:, span])))
    return tuple(blocks)


def _cubic(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = np.abs(distances)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= _REACH, far, 0.0))
