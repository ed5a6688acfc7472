"""How well a saliency map agrees with another, or with where people looked: NSS, CC, SIM and KL.

Source: Bylinskii et al., "What do different evaluation metrics tell us about saliency models?", TPAMI 2019. A flat map
says nothing, so it scores what chance does: NSS 0, CC 0, and in SIM and KL it counts as even.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[Any]

_KL_EPSILON = 2.2204e-16  # the MIT benchmark's


def nss(saliency: Map, fixations: Map, ddof: int = 0) -> float:
    """Normalised scanpath saliency: mean of the standardised map `(H, W)` where `fixations` `(H, W)` is not 0.

    Args:
        saliency: any range.
        fixations: at least one must not be 0.
        ddof: 0 divides the deviation by N, 1 by N - 1.
    """
    if not np.ptp(saliency) > 0:
        return 0.0
    mean, deviation = _mean_and_deviation(saliency, ddof)
    return float((saliency[fixations > 0].mean(dtype=np.float64) - mean) / deviation)


def cc(saliency: Map, density: Map) -> float:
    """Pearson's correlation of two maps `(H, W)`, -1 to 1."""
    if not (np.ptp(saliency) > 0 and np.ptp(density) > 0):
        return 0.0
    a, b = _centred(saliency), _centred(density)
    return float(_dot(a, b) / np.sqrt(_dot(a, a) * _dot(b, b)))


def sim(saliency: Map, density: Map) -> float:
    """Similarity, 0 to 1: what two maps `(H, W)`, each taken to [0, 1] and then to a sum of 1, have in common."""
    first, second = (values.astype(np.float64) for values in (saliency, density))
    first -= first.min()
    second -= second.min()
    _share(first)
    _share(second)
    return float(np.minimum(first, second, out=first).sum())


def kl_divergence(saliency: Map, density: Map) -> float:
    """Kullback-Leibler divergence of `saliency` from `density`, both `(H, W)` and at least 0, in nats; 0 is best.

    Each is taken to a sum of 1, and not to [0, 1] first, as the MIT benchmark has it.
    """
    found, wanted = (values.astype(np.float64) for values in (saliency, density))
    _share(found)
    _share(wanted)
    return float((wanted * np.log(_KL_EPSILON + wanted / (found + _KL_EPSILON))).sum())


def _mean_and_deviation(values: Map, ddof: int) -> tuple[float, float]:
    if values.dtype == np.uint8:  # OpenCV's sums are exact, and take no copy
        mean, deviation = cv2.meanStdDev(values)
        return float(mean[0, 0]), float(deviation[0, 0]) * (values.size / (values.size - ddof)) ** 0.5
    centred = _centred(values)
    return float(values.mean(dtype=np.float64)), float((_dot(centred, centred) / (values.size - ddof)) ** 0.5)


def _centred(values: Map) -> NDArray[np.float64]:
    """Returns a map's values `(n,)` less their mean."""
    centred: NDArray[np.float64] = values.astype(np.float64).ravel()
    centred -= centred.mean()
    return centred


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Returns the sum of products, without BLAS: its threads get in the way of those that score frames."""
    return float(np.einsum("i,i->", a, b))


def _share(values: NDArray[np.float64]) -> None:
    """Takes a map's values to a sum of 1, in place; evenly where all are 0."""
    total = values.sum()
    if total > 0:
        values /= total
    else:
        values[:] = 1 / values.size
