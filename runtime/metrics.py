"""How well a saliency map agrees with another, or with where people looked: NSS, CC, SIM and KL.

Source: Bylinskii et al., "What do different evaluation metrics tell us about saliency models?", TPAMI 2019. A flat map
says nothing, so it scores what chance does: NSS 0, CC 0, and in SIM and KL it counts as even.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    centred = _centred(saliency)
    deviation = np.sqrt(_dot(centred, centred) / (saliency.size - ddof))
    return float(centred[fixations.ravel() > 0].mean() / deviation)


def cc(saliency: Map, density: Map) -> float:
    """Pearson's correlation of two maps `(H, W)`, -1 to 1."""
    if not (np.ptp(saliency) > 0 and np.ptp(density) > 0):
        return 0.0
    a, b = _centred(saliency), _centred(density)
    return float(_dot(a, b) / np.sqrt(_dot(a, a) * _dot(b, b)))


def sim(saliency: Map, density: Map) -> float:
    """Similarity, 0 to 1: what two maps `(H, W)`, each taken to [0, 1] and then to a sum of 1, have in common."""
    return float(np.minimum(_distribution(saliency), _distribution(density)).sum())


def kl_divergence(saliency: Map, density: Map) -> float:
    """Kullback-Leibler divergence of `saliency` from `density`, both `(H, W)` and at least 0, in nats; 0 is best.

    Each is taken to a sum of 1, and not to [0, 1] first, as the MIT benchmark has it.
    """
    found, wanted = _share(saliency), _share(density)
    return float((wanted * np.log(_KL_EPSILON + wanted / (found + _KL_EPSILON))).sum())


def _centred(values: Map) -> NDArray[np.float64]:
    """Returns a map's values `(n,)` less their mean."""
    centred: NDArray[np.float64] = values.astype(np.float64).ravel()
    centred -= centred.mean()
    return centred


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Returns the sum of products, without BLAS: its threads get in the way of those that score frames."""
    return float(np.einsum("i,i->", a, b))


def _distribution(values: Map) -> NDArray[np.float64]:
    return _share(values.astype(np.float64) - float(values.min()))


def _share(values: Map) -> NDArray[np.float64]:
    total = values.sum(dtype=np.float64)
    share: NDArray[np.float64] = values / total if total > 0 else np.full(values.shape, 1 / values.size)
    return share
