"""Areas under the ROC curve of a saliency map: how well its values tell fixated places from others.

Every function takes values in any range, finite. A flat map can't tell anything: 0.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[Any]

SPLITS = 100
STEPS = 10  # thresholds are 0, 1/10, ... of the map's range
_COUNTED = (np.uint8, np.uint16)
JITTER = 1e-7
_FINEST = 2.0**30  # steps to a level, each a hundredth of the jitter
# The chance that it takes a float32 of 1 to the next one: 1.19e-7 away, so it must be more than half of that.
RAISED = 1 - 2**-24 / JITTER


def exact_auc(positives: Map, negatives: Map, weights: Map | None = None) -> float:
    """Returns the chance that a positive value is above a negative one, ties counting half: AUC at every threshold.

    Args:
        positives: `(n,)`, at least one.
        negatives: `(m,)`, at least one.
        weights: `(m,)`, at least 0: how often each negative counts; None for once.
    """
    if negatives.dtype in _COUNTED and positives.dtype in _COUNTED:
        levels = int(max(negatives.max(), positives.max())) + 1
        upto_level = np.concatenate([[0], np.cumsum(np.bincount(negatives, weights, minlength=levels))])
        at = positives.astype(np.intp)
        return float((upto_level[at] + upto_level[at + 1]).mean() / (2 * upto_level[-1]))
    if weights is None:
        ordered = np.sort(negatives)
        below, upto = (np.searchsorted(ordered, positives, side) for side in ("left", "right"))
        return float((below + upto).mean() / (2 * len(ordered)))
    order = np.argsort(negatives)
    ordered, total = negatives[order], np.concatenate([[0], np.cumsum(weights[order], dtype=np.float64)])
    below, upto = (total[np.searchsorted(ordered, positives, side)] for side in ("left", "right"))
    return float((below + upto).mean() / (2 * total[-1]))


def auc_judd(
    saliency: Map, fixated: NDArray[np.bool_], rng: np.random.Generator | None = None, *, in_float32: bool = False
) -> float:
    """AUC-Judd with a threshold at each fixated value, as the published code and the MIT benchmark have it.

    Fixated pixels of equal value are counted one after the other, so ties cost something. The published jitter of 1e-7
    breaks them: what it leads to is drawn here, the ranks of the fixated pixels among those of equal value. In float32,
    in which the published code keeps 0..255, there is room for such jitter only at 0; a 1 goes up by one unit in the
    last place or stays, and greater levels stay.
    The curve goes straight from (0, 0) to its first point, which flatters a map where there are few fixations.

    Args:
        saliency: `(H, W)`.
        fixated: `(H, W)`, at least one set and one not.
        rng: breaks ties; None leaves them.
        in_float32: whether the jitter is added in float32, or in float64.

    Returns:
        0 to 1 where fixated values differ; many equal ones can bring it below.
    """
    if not np.ptp(saliency) > 0:
        return 0.5
    if rng is not None and saliency.dtype not in _COUNTED:
        if in_float32:
            saliency, rng = (saliency.astype(np.float32) + rng.random(saliency.shape) * JITTER).astype(np.float32), None
        else:  # pixels of one level that was resized differ by less than 1e-12, and jitter mixes them all the same
            saliency = np.rint(saliency * _FINEST)
    thresholds = np.sort(saliency[fixated])
    higher, above = _count_above(saliency, thresholds)
    if rng is not None:
        _break_ties(above, thresholds, higher, rng, black_only=in_float32)
        if in_float32:
            _raise_ones(above, thresholds, higher, rng)
    found = np.arange(1, len(thresholds) + 1)
    hits = found / len(thresholds)
    false_alarms = (above[::-1] - found) / (saliency.size - len(thresholds))
    return _area(false_alarms, hits)


def _count_above(saliency: Map, thresholds: Map) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Counts the pixels above each threshold `(n,)`, and those above it or equal."""
    if saliency.dtype in _COUNTED:  # nearly three times as fast as sorting
        counts = np.bincount(saliency.ravel(), minlength=int(saliency.max()) + 1)
        above = np.cumsum(counts[::-1])[::-1]
        return (above - counts)[thresholds], above[thresholds]
    ordered = np.sort(saliency, axis=None)
    below, upto = (np.searchsorted(ordered, thresholds, side) for side in ("left", "right"))
    return saliency.size - upto, saliency.size - below


def _break_ties(
    above: NDArray[np.intp], thresholds: Map, higher: NDArray[np.intp], rng: np.random.Generator, *, black_only: bool
) -> None:
    """Draws ranks among pixels of equal value, and leaves in `above` the pixels that are above each one or it itself.

    All are `(n,)`, `thresholds` rising; `above` counts the pixels of equal or greater value, `higher` of greater.
    """
    free = np.flatnonzero((above - higher > 1) & ((thresholds == 0) | (not black_only)))
    levels, equal = thresholds[free], (above - higher)[free]
    ranks = rng.integers(equal)
    ranks = ranks[np.lexsort((-ranks, levels))]
    # Where one was drawn twice, all of that value are drawn again, this time without putting back.
    twice = (levels[1:] == levels[:-1]) & (ranks[1:] == ranks[:-1])
    for level in np.unique(levels[1:][twice]):
        own = np.flatnonzero(levels == level)
        ranks[own] = np.sort(rng.choice(equal[own[0]], len(own), replace=False, shuffle=False))[::-1]
    above[free] = higher[free] + ranks + 1


def _raise_ones(above: NDArray[np.intp], thresholds: Map, higher: NDArray[np.intp], rng: np.random.Generator) -> None:
    """Raises each pixel of level 1 by chance; `above` is corrected. Arguments are those of `_break_ties`."""
    own = np.flatnonzero(thresholds == 1)
    if not len(own):
        return
    raised = rng.binomial(len(own), RAISED)
    others_raised = rng.binomial(above[own[0]] - higher[own[0]] - len(own), RAISED)
    above[own[len(own) - raised :]] = higher[own[0]] + raised + others_raised


def shuffled_auc(
    saliency: Map, fixated: NDArray[np.bool_], others: Map, rng: np.random.Generator, *, at_top: bool
) -> float:
    """Shuffled AUC: negatives are places that were fixated in other frames.

    The mean over 100 splits, each with as many negatives as fixations, drawn without replacement. Their values matter
    only by the threshold they reach, so a split is a draw of the multivariate hypergeometric distribution.

    Args:
        saliency: `(H, W)`.
        fixated: `(H, W)`, at least one set.
        others: indices `(m,)` of the others' pixels in the flat map, each once; at least one.
        rng: draws the splits.
        at_top: whether the map's maximum is a threshold too (MATLAB's ranges end there, NumPy's before).
    """
    if not np.ptp(saliency) > 0:
        return 0.5
    values = saliency.ravel()
    positives = _reached(values[fixated.ravel()], saliency, at_top=at_top)
    count = min(int(positives.sum()), len(others))
    pool = _reached(values[others], saliency, at_top=at_top)
    return _stepped(positives, rng.multivariate_hypergeometric(pool, count, SPLITS))


def auc_borji(saliency: Map, fixated: NDArray[np.bool_], rng: np.random.Generator, *, at_top: bool) -> float:
    """AUC-Borji: the mean over 100 splits, each with as many random pixels as fixations for negatives.

    Arguments are those of `shuffled_auc`; pixels are drawn with replacement, fixated ones too.
    """
    if not np.ptp(saliency) > 0:
        return 0.5
    positives = _reached(saliency[fixated], saliency, at_top=at_top)
    everywhere = _reached(saliency.ravel(), saliency, at_top=at_top)
    return _stepped(positives, rng.multinomial(int(positives.sum()), everywhere / saliency.size, SPLITS))


def _reached(values: Map, saliency: Map, *, at_top: bool) -> NDArray[np.int64]:
    """Counts values by the highest threshold they reach: of 0, 1/10, ... 9/10 of the map's range, and perhaps 1."""
    low, high = float(saliency.min()), float(saliency.max())
    thresholds = np.arange(STEPS + at_top) / STEPS
    reached = np.searchsorted(thresholds, (values.astype(np.float64) - low) / (high - low), "right")
    return np.bincount(reached - 1, minlength=len(thresholds))


def _stepped(positives: NDArray[np.int64], splits: NDArray[np.int64]) -> float:
    """Returns the mean area over splits `(splits, thresholds)`; at fixed thresholds it is that of the mean curve."""
    hits, false_alarms = (
        np.cumsum(counts[::-1]) / counts.sum() for counts in (positives, splits.sum(axis=0, dtype=np.int64))
    )
    return _area(false_alarms, hits)


def _area(false_alarms: NDArray[np.float64], hits: NDArray[np.float64]) -> float:
    """Returns the area under a curve that begins at (0, 0) and ends at (1, 1)."""
    x, y = (np.concatenate([[0.0], rates, [1.0]]) for rates in (false_alarms, hits))
    return float(((x[1:] - x[:-1]) * (y[1:] + y[:-1])).sum() / 2)
