"""How many pixels of a map are above a value, without sorting it: levels are counted, and only few pixels compared."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from salema.runtime.metrics import level_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[Any]
    Counts = NDArray[Any]

_COUNTED = (np.uint8, np.uint16)
_LEVELS = 2**16
_CROWDED = 64  # levels that have more than one pixel of so many


class Counting:
    """The values of a map, counted by level once for all that is asked about them.

    Values of uint8 and uint16 are their own levels. Others are sorted into 65536 of equal width: those in a level
    above a value's are above it, those in the same level are compared with it.

    Args:
        values: any shape, finite, not all equal.
    """

    def __init__(self, values: Map) -> None:
        self.values = values.ravel()
        self.low, self.high = float(values.min()), float(values.max())
        self.by_value = values.dtype in _COUNTED

    @cached_property
    def levels(self) -> NDArray[Any]:
        """Each value's level, `(n,)`."""
        return self.values if self.by_value else self._levels_of(self.values)

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """How many values each level has."""
        if self.values.dtype == np.uint8:
            return level_counts(self.values)[: self._size]
        return np.bincount(self.levels, minlength=self._size)

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
        # A black background is one level: to compare all of it with its threshold is faster than to look each up.
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
        shared = np.zeros(_LEVELS, bool)
        shared[at] = True
        near = np.flatnonzero(shared.take(self.levels))
        values = self.values[near]
        if step:
            values = np.rint(values / step) * step
        distinct = np.array(sorted(set(thresholds.tolist())), thresholds.dtype)
        place = np.searchsorted(distinct, thresholds)
        # How many of the distinct thresholds a value reaches, and how many of them it is above.
        reached, passed = (np.searchsorted(distinct, values, side) for side in ("right", "left"))
        own = None if weights is None else weights[near]
        over = np.where(shared, 0, counts)[::-1].cumsum()[::-1][at]
        higher, above = (
            over + np.bincount(some, own, minlength=len(distinct) + 1)[:0:-1].cumsum()[::-1][place]
            for some in (passed, reached)
        )
        return higher, above

    def _levels_of(self, values: Map) -> NDArray[np.uint16]:
        # The same operations on all: where one value is above another, so is its level, or it is the same.
        number = values.dtype.type
        scaled = values - number(self.low)
        scaled /= number(self.high - self.low)  # first, as its inverse can be too great
        scaled *= number(_LEVELS - 2)
        scaled += number(0.5)
        levels: NDArray[np.uint16] = scaled.astype(np.uint16)
        return levels
