"""Areas under the ROC curve of a saliency map: how well its values separate fixated pixels from others.

Every function takes values in any range, finite, or the `Counting` of a map, which several can share, and fixations as
`runtime.metrics.places_of` does. A flat map scores 0.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from salema.benchmarks.metrics.counting import Counting
from salema.runtime.metrics import places_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salema.runtime.metrics import Measured

    Map = NDArray[Any]

SPLITS = 100
STEPS = 10  # thresholds are 0, 1/10, ... of the map's range
JITTER = 1e-7
_FINEST = 2.0**-30  # a hundredth of the jitter
# The chance that jitter rounds a float32 of 1 up to the next one, 1.19e-7 above: it must exceed half of that.
RAISED = 1 - 2**-24 / JITTER


def exact_auc(positives: Map, negatives: Map | Counting, weights: Map | None = None) -> float:
    """Returns the chance that a positive value is above a negative one, ties counting half: AUC at every threshold.

    Args:
        positives: `(n,)`, at least one.
        negatives: `(m,)`, at least one; or a map that is counted, and holds the positives.
        weights: `(m,)`, at least 0: how often each negative counts; None for once.
    """
    if isinstance(negatives, Counting):
        if not negatives.high > negatives.low:
            return 0.5
        higher, above = negatives.above(positives, weights)
        total = negatives.values.size if weights is None else weights.sum()
        return 1 - float((higher + above).mean() / (2 * total))
    weights = np.ones(negatives.shape) if weights is None else weights
    order = np.argsort(negatives)
    ordered, sums = negatives[order], np.concatenate([[0], np.cumsum(weights[order], dtype=np.float64)])
    below, upto = (sums[np.searchsorted(ordered, positives, side)] for side in ("left", "right"))
    return float((below + upto).mean() / (2 * sums[-1]))


def without_positives(auc: float, positives: int, pixels: int) -> float:
    """Returns `exact_auc` against the other pixels from that against all, the positives among them.

    Positives against each other score a half: what one of a pair wins, the other loses.
    """
    return (pixels * auc - positives / 2) / (pixels - positives)


def auc_judd(
    saliency: Map | Counting,
    fixations: Map,
    rng: np.random.Generator | None = None,
    *,
    in_float32: bool = False,
) -> float:
    """AUC-Judd with a threshold at each fixated value, as the published code and the MIT benchmark have it.

    Fixated pixels of equal value are counted one after the other, so ties lower the score. The published code breaks
    ties by a jitter of up to 1e-7. Here the result of that jitter is drawn: the ranks of the fixated pixels among those
    of equal value. The published code keeps 0..255 in float32, where such jitter changes only 0 and 1: a 1 rises by one
    unit in the last place or stays, and greater levels stay.
    The curve goes straight from (0, 0) to its first point, so a map scores too high where there are few fixations.

    Args:
        saliency: `(H, W)`.
        fixations: at least one, and not everywhere.
        rng: breaks ties; None leaves them.
        in_float32: whether the jitter is added in float32, or in float64.

    Returns:
        0 to 1 where fixated values differ; many equal ones can bring it below.
    """
    counted = counting(saliency)
    if not counted.high > counted.low:
        return 0.5
    if rng is not None and in_float32 and not counted.by_value:
        counted, rng = Counting(_jittered(counted.values, rng)), None
    thresholds, above = _ranks(counted, counted.values[places_of(fixations)], rng, in_float32=in_float32)
    found = np.arange(1, len(thresholds) + 1)
    hits = found / len(thresholds)
    false_alarms = (above[::-1] - found) / (counted.values.size - len(thresholds))
    return _area(false_alarms, hits)


def _ranks(
    counted: Counting, fixated: Map, rng: np.random.Generator | None, *, in_float32: bool
) -> tuple[Map, NDArray[np.intp]]:
    """Returns the fixated values, rising, and how many pixels are at or above each after the jitter."""
    # Resizing makes pixels of one level differ by less than 1e-12; the jitter is far greater, so they count as equal.
    step = _FINEST if rng is not None else None
    thresholds = np.sort(fixated)
    higher, above = counted.above(thresholds, step=step)
    if rng is not None:
        levels = thresholds if counted.by_value else np.rint(thresholds / _FINEST)
        _break_ties(above, levels, higher, rng, black_only=in_float32)
        if in_float32:
            _raise_ones(above, thresholds, higher, rng)
    return thresholds, above


def counting(saliency: Map | Counting) -> Counting:
    """Returns the map counted, itself if it is."""
    return saliency if isinstance(saliency, Counting) else Counting(saliency)


def _jittered(values: Map, rng: np.random.Generator) -> NDArray[np.float32]:
    jittered: NDArray[np.float32] = (values.astype(np.float32) + rng.random(values.shape) * JITTER).astype(np.float32)
    return jittered


def _break_ties(
    above: NDArray[np.intp], thresholds: Map, higher: NDArray[np.intp], rng: np.random.Generator, *, black_only: bool
) -> None:
    """Draws ranks among pixels of equal value; `above` then counts the pixels at or above each one.

    All are `(n,)`, `thresholds` rising. Before, `above` counts pixels of equal or greater value, `higher` of greater.
    """
    free = np.flatnonzero((above - higher > 1) & ((thresholds == 0) | (not black_only)))
    levels, equal = thresholds[free], (above - higher)[free]
    ranks = rng.integers(equal)
    ranks = ranks[np.lexsort((-ranks, levels))]
    # Where a rank was drawn twice, all of that value are drawn again, without replacement.
    twice = (levels[1:] == levels[:-1]) & (ranks[1:] == ranks[:-1])
    for level in set(levels[1:][twice].tolist()):
        own = np.flatnonzero(levels == level)
        ranks[own] = np.sort(rng.choice(equal[own[0]], len(own), replace=False, shuffle=False))[::-1]
    above[free] = higher[free] + ranks + 1


def _raise_ones(above: NDArray[np.intp], thresholds: Map, higher: NDArray[np.intp], rng: np.random.Generator) -> None:
    """Raises pixels of level 1 at random, and corrects `above`. Arguments are those of `_break_ties`."""
    own = np.flatnonzero(thresholds == 1)
    if not len(own):
        return
    raised = rng.binomial(len(own), RAISED)
    others_raised = rng.binomial(above[own[0]] - higher[own[0]] - len(own), RAISED)
    above[own[len(own) - raised :]] = higher[own[0]] + raised + others_raised


def shuffled_auc(
    saliency: Map | Counting, fixations: Map, others: Map, rng: np.random.Generator, *, at_top: bool
) -> float:
    """Shuffled AUC: negatives are places that were fixated in other frames.

    The mean over 100 splits, each with as many negatives as fixations, drawn without replacement. Their values matter
    only by the threshold they reach, so a split is a draw of the multivariate hypergeometric distribution.

    Args:
        saliency: `(H, W)`.
        fixations: at least one.
        others: indices `(m,)` of the others' pixels in the flat map, each once; at least one.
        rng: draws the splits.
        at_top: whether the map's maximum is a threshold too (MATLAB's ranges end there, NumPy's before).
    """
    counted = counting(saliency)
    if not counted.high > counted.low:
        return 0.5
    positives = _reached(counted, counted.values[places_of(fixations)], at_top=at_top)
    count = min(int(positives.sum()), len(others))
    pool = _reached(counted, counted.values[others], at_top=at_top)
    return _stepped(positives, rng.multivariate_hypergeometric(pool, count, SPLITS).sum(axis=0))


def auc_borji(saliency: Map | Counting, fixations: Map, rng: np.random.Generator, *, at_top: bool) -> float:
    """AUC-Borji: the mean over 100 splits, each with as many random pixels as fixations for negatives.

    Arguments are those of `shuffled_auc`; pixels are drawn with replacement, fixated ones too.
    """
    counted = counting(saliency)
    if not counted.high > counted.low:
        return 0.5
    positives = _reached(counted, counted.values[places_of(fixations)], at_top=at_top)
    everywhere = _reached_of_all(counted, at_top=at_top) / counted.values.size
    return _stepped(positives, rng.multinomial(SPLITS * int(positives.sum()), everywhere))


def _reached(counted: Counting, values: Map, *, at_top: bool) -> NDArray[np.int64]:
    """Counts values by the highest threshold they reach: 0, 1/10, ... 9/10 of the map's range, and 1 if `at_top`."""
    stretched = (values.astype(np.float64) - counted.low) / (counted.high - counted.low)
    reached = np.searchsorted(_thresholds(at_top=at_top), stretched, "right")
    return np.bincount(reached - 1, minlength=STEPS + at_top)


def _reached_of_all(counted: Counting, *, at_top: bool) -> NDArray[np.int64]:
    """Counts all values of a map as `_reached` does."""
    if counted.by_value:
        levels = np.flatnonzero(counted.counts).astype(np.float64)
        stretched = (levels - counted.low) / (counted.high - counted.low)
        reached = np.searchsorted(_thresholds(at_top=at_top), stretched, "right")
        found = np.bincount(reached - 1, counted.counts[counted.counts > 0], minlength=STEPS + at_top)
        return found.astype(np.int64)
    _, above = counted.above(step_values(counted, at_top=at_top))
    counts: NDArray[np.int64] = above - np.append(above[1:], 0)
    return counts


def step_values(saliency: Measured | Counting, *, at_top: bool) -> Map:
    """Returns the thresholds `(thresholds,)` of `auc_borji` for a map of floating-point numbers."""
    low, high = saliency.low, saliency.high
    values: Map = (low + _thresholds(at_top=at_top) * (high - low)).clip(low, high).astype(saliency.values.dtype)
    return values


def _thresholds(*, at_top: bool) -> NDArray[np.float64]:
    return np.arange(STEPS + at_top) / STEPS


def _stepped(positives: NDArray[np.int64], drawn: NDArray[np.int64]) -> float:
    """Returns the mean area over splits, whose counts `drawn` sums: at fixed thresholds, the area of the mean curve.

    Both arrays count values by the highest threshold they reach, `(thresholds,)`.
    """
    hits, false_alarms = (np.cumsum(counts[::-1]) / counts.sum() for counts in (positives, drawn))
    return _area(false_alarms, hits)


def _area(false_alarms: NDArray[np.float64], hits: NDArray[np.float64]) -> float:
    """Returns the area under a curve that begins at (0, 0) and ends at (1, 1)."""
    x, y = (np.concatenate([[0.0], rates, [1.0]]) for rates in (false_alarms, hits))
    return float(((x[1:] - x[:-1]) * (y[1:] + y[:-1])).sum() / 2)
