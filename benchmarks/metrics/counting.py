"""Counts the pixels of a map above a value without sorting: levels are counted, and few pixels are compared."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from salema.runtime.metrics import Measured, count_levels, measured, places_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[Any]
    Counts = NDArray[Any]

_COUNTED = (np.uint8, np.uint16)
_LEVELS = 2**13
_CROWDED = 64  # a level with more than one in 64 of the pixels is compared whole
_LOOKS_UP_16_BITS = int(cv2.__version__.partition(".")[0]) >= 5  # noqa: PLR2004 - OpenCV 5 takes half of NumPy's time
_LEAST, _MOST = 1e-30, 1e30  # ranges that float32 can hold


class Counting:
    """The values of a map, counted by level once; several metrics use the counts.

    Values of uint8 and uint16 are their own levels. Others are sorted into 8192 of equal width: those in a level
    above a value's are above it, those in the same level are compared with it.

    Args:
        saliency: `(H, W)`, finite, not all equal.
        asked: thresholds `(m,)` that `above` will get, from the least value to the greatest: pixels in their levels
            are looked up in one go.
    """

    def __init__(self, saliency: Map | Measured, asked: Map | None = None) -> None:
        self.known = measured(saliency)
        self.values = self.known.values.ravel()
        self.by_value = self.values.dtype in _COUNTED
        self.low, self.high = self.known.low, self.known.high
        self._asked = asked
        self._marked, self._found = np.zeros(_LEVELS, bool), np.empty(0, np.intp)

    @cached_property
    def levels(self) -> NDArray[Any]:
        """Each value's level, `(n,)`."""
        return self.values if self.by_value else self._levels_of(self.values)

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """How many values each level has."""
        if self.known.has_levels:
            return self.known.counts[: self._size]
        return count_levels(self.levels, self._size)

    @property
    def _size(self) -> int:
        return int(self.high) + 1 if self.by_value else _LEVELS

    def above(self, thresholds: Map, weights: Map | None = None, step: float | None = None) -> tuple[Counts, Counts]:
        """Counts the values above each threshold `(m,)`, and those above it or equal, `(m,)` each.

        Args:
            thresholds: from the least value to the greatest.
            weights: `(n,)`, at least 0: how often each value counts; None for once.
            step: values that round to the same multiple of it are equal; much less than a level. None: as they are.
        """
        counts = self.counts if weights is None else np.bincount(self.levels, weights, minlength=self._size)
        if self.by_value:
            above = counts[::-1].cumsum()[::-1]
            return (above - counts)[thresholds], above[thresholds]
        at = self._levels_of(thresholds)
        if step:
            thresholds = np.rint(thresholds / step) * step
        # A black background is one level: comparing all of it is faster than looking each pixel up.
        crowded = self.counts[at] > self.values.size // _CROWDED
        higher, above = (np.empty(len(thresholds), counts.dtype) for _ in range(2))
        for level in set(thresholds[crowded].tolist()):
            own = thresholds == level
            higher[own], above[own] = self._compared(level, weights, (step or 0) / 2)
        higher[~crowded], above[~crowded] = self._looked_up(thresholds[~crowded], at[~crowded], counts, weights, step)
        return higher, above

    def _compared(self, threshold: Any, weights: Map | None, around: float) -> tuple[Any, Any]:
        found = (self.values > threshold + around, self.values >= threshold - around)
        higher, above = (np.count_nonzero(some) if weights is None else weights[some].sum() for some in found)
        return higher, above

    def _looked_up(
        self, thresholds: Map, at: NDArray[np.uint16], counts: Counts, weights: Map | None, step: float | None
    ) -> tuple[Counts, Counts]:
        near = self._near(at)
        values = self.values[near]
        if step:
            values = np.rint(values / step) * step
        if weights is None:
            values.sort()
            left = np.arange(len(values), -1, -1)
        else:
            order = np.argsort(values)
            values, left = values[order], np.append(weights[near][order][::-1].cumsum()[::-1], 0)
        over = np.where(self._marked, 0, counts)[::-1].cumsum()[::-1][at]
        # From the place of a threshold among the near values on, those are left that are above it.
        higher, above = (over + left[np.searchsorted(values, thresholds, side)] for side in ("right", "left"))
        return higher, above

    def _near(self, at: NDArray[np.uint16]) -> NDArray[np.intp]:
        """Returns where the values in these levels are, `(k,)`, and in others that were asked for."""
        if not self._marked[at].all():
            self._marked[at] = True
            asked = self._levels_of(self._asked) if self._asked is not None else at
            self._marked[asked[self.counts[asked] <= self.values.size // _CROWDED]] = True
            self._found = _marked_places(self.levels, self._marked)
        return self._found

    def _levels_of(self, values: Map) -> NDArray[np.uint16]:
        # The same operations on all: where one value is above another, so is its level, or it is the same.
        number = self._number
        low, high = number(self.low), number(self.high)
        scaled = np.subtract(values, low, dtype=number, casting="same_kind")
        if number is np.float32:
            scaled *= number(_LEVELS - 1) / (high - low)
        else:  # the factor can overflow
            scaled /= high - low
            scaled *= number(_LEVELS - 1)
        levels: NDArray[np.uint16] = scaled.astype(np.uint16)
        return levels

    @cached_property
    def _number(self) -> type[np.float32 | np.float64]:
        """The type in which levels are computed: float32 takes half the time, and most ranges fit."""
        fits = max(-self.low, self.high) < _MOST and np.float32(self.high) - np.float32(self.low) > _LEAST
        return np.float32 if fits else np.float64


def _marked_places(levels: NDArray[np.uint16], marked: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Returns the indices `(k,)` of the marked levels among `(n,)`."""
    if not _LOOKS_UP_16_BITS:
        return np.flatnonzero(marked.take(levels))
    table = np.zeros(2**16, np.uint8)
    table[: marked.size] = marked
    return places_of(np.asarray(cv2.LUT(levels.reshape(1, -1), table)))
