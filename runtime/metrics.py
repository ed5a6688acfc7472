"""How well a saliency map agrees with another, or with where people looked: the published table's NSS, CC and SIM.

Source: Bylinskii et al., "What do different evaluation metrics tell us about saliency models?", TPAMI 2019. A flat map
says nothing, so it scores what chance does: NSS 0, CC 0, and in SIM it counts as even.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[Any]


def nss(saliency: Map, fixations: Map, ddof: int = 0) -> float:
    """Normalised scanpath saliency: mean of the standardised map `(H, W)` where `fixations` `(H, W)` is not 0.

    Args:
        saliency: any range.
        fixations: at least one must not be 0.
        ddof: 0 divides the deviation by N, 1 by N - 1.
    """
    values = saliency.astype(np.float64)
    deviation = values.std(ddof=ddof)
    return float((values[fixations > 0].mean() - values.mean()) / deviation) if np.ptp(values) > 0 else 0.0


def cc(saliency: Map, density: Map) -> float:
    """Pearson's correlation of two maps `(H, W)`, -1 to 1."""
    a, b = (values.astype(np.float64) - values.mean(dtype=np.float64) for values in (saliency, density))
    if not (np.ptp(saliency) > 0 and np.ptp(density) > 0):
        return 0.0
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def sim(saliency: Map, density: Map) -> float:
    """Similarity, 0 to 1: what two maps `(H, W)`, each taken to [0, 1] and then to a sum of 1, have in common."""
    return float(np.minimum(_distribution(saliency), _distribution(density)).sum())


def _distribution(values: Map) -> NDArray[np.float64]:
    wide = values.astype(np.float64)
    wide = wide - wide.min() if np.ptp(values) > 0 else np.ones(values.shape)
    share: NDArray[np.float64] = wide / wide.sum()
    return share
