"""The metrics as the papers write them, loop by loop: the tests hold the fast ones to them, and a study times both.

Sources: Judd et al. 2012, Borji et al. 2013, Zhang et al. 2008 (shuffled AUC), Peters et al. 2005 (NSS), Bylinskii et
al. 2019. Maps are `(H, W)`, neither flat nor empty; `fixated` is boolean with at least one set and one not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Map = NDArray[Any]


def auc_judd(saliency: Map, fixated: Map) -> float:
    """Takes each fixated value as a threshold, one after the other."""
    thresholds = sorted(saliency[fixated], reverse=True)
    hits, false_alarms = [0.0], [0.0]
    for above_fixated, threshold in enumerate(thresholds, 1):
        above = np.sum(saliency >= threshold)
        hits.append(above_fixated / len(thresholds))
        false_alarms.append((above - above_fixated) / (saliency.size - len(thresholds)))
    return _trapezoid([*false_alarms, 1.0], [*hits, 1.0])


def shuffled_auc(
    saliency: Map, fixated: Map, others: Map, rng: np.random.Generator, *, at_top: bool = False, splits: int = 100
) -> float:
    """Draws from the fixations of other frames, split after split; `others` is boolean `(H, W)`."""
    pool = np.flatnonzero(others)
    count = min(int(fixated.sum()), len(pool))
    drawn = [rng.permutation(pool)[:count] for _ in range(splits)]
    return _over_splits(saliency, fixated, drawn, at_top=at_top)


def auc_borji(
    saliency: Map, fixated: Map, rng: np.random.Generator, *, at_top: bool = False, splits: int = 100
) -> float:
    """Draws from all pixels, split after split."""
    drawn = [rng.integers(0, saliency.size, int(fixated.sum())) for _ in range(splits)]
    return _over_splits(saliency, fixated, drawn, at_top=at_top)


def _over_splits(saliency: Map, fixated: Map, drawn: list[Map], *, at_top: bool) -> float:
    stretched = _stretched(saliency)
    positives = stretched[fixated]
    areas = []
    for places in drawn:
        negatives = stretched.ravel()[places]
        top = max(positives.max(), negatives.max())
        hits, false_alarms = [0.0], [0.0]
        for step in range(10, -1, -1):
            threshold = step / 10
            if threshold > top or (step == 10 and not at_top):  # noqa: PLR2004 - the last of ten steps
                continue
            hits.append(np.sum(positives >= threshold) / len(positives))
            false_alarms.append(np.sum(negatives >= threshold) / len(negatives))
        areas.append(_trapezoid([*false_alarms, 1.0], [*hits, 1.0]))
    return float(np.mean(areas))


def rank_auc(positives: Map, negatives: Map) -> float:
    """Compares every positive with every negative; ties count half."""
    wins = 0.0
    for positive in positives:
        for negative in negatives:
            wins += 1.0 if positive > negative else 0.5 if positive == negative else 0.0
    return wins / (len(positives) * len(negatives))


def nss(saliency: Map, fixated: Map, ddof: int = 0) -> float:
    """Standardises the map, then takes its mean over the fixations."""
    standard = (saliency - np.mean(saliency, dtype=np.float64)) / np.std(saliency, ddof=ddof, dtype=np.float64)
    return float(np.mean(standard[fixated]))


def cc(saliency: Map, density: Map) -> float:
    """Returns the correlation of the two maps' values."""
    return float(np.corrcoef(saliency.ravel(), density.ravel())[0, 1])


def sim(saliency: Map, density: Map) -> float:
    """Sums the lesser of the two maps, each stretched to [0, 1] and then scaled to a sum of 1."""
    first, second = _stretched(saliency), _stretched(density)
    return float(np.sum(np.minimum(first / np.sum(first), second / np.sum(second))))


def kl_divergence(saliency: Map, density: Map) -> float:
    """Sums `p log(p / q)`, with the MIT benchmark's epsilon."""
    epsilon = 2.2204e-16
    predicted, wanted = (
        values / np.sum(values) for values in (saliency.astype(np.float64), density.astype(np.float64))
    )
    return float(np.sum(wanted * np.log(epsilon + wanted / (predicted + epsilon))))


def _stretched(values: Map) -> NDArray[np.float64]:
    wide = values.astype(np.float64)
    stretched: NDArray[np.float64] = (wide - wide.min()) / (wide.max() - wide.min())
    return stretched


def _trapezoid(x: list[float], y: list[float]) -> float:
    return float(sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(x) - 1)))
