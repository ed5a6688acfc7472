"""How well a saliency map agrees with another map, or with where people looked: NSS, CC, SIM and KL.

Source: Bylinskii et al., "What do different evaluation metrics tell us about saliency models?", TPAMI 2019. A flat map
says nothing, so it scores as chance does: NSS 0 and CC 0; SIM and KL take it as an even distribution.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[Any]

_KL_EPSILON = 2.2204e-16  # the MIT benchmark's
_LEVELS = 256
_MOST_COUNTED = 2**24  # OpenCV counts in float32


class Measured:
    """A map, and the numbers that several metrics need of it, each computed once.

    Args:
        values: `(H, W)`.
    """

    def __init__(self, values: Map) -> None:
        self.values = values

    @cached_property
    def low(self) -> float:
        """The least value."""
        return float(self.values.min())

    @cached_property
    def is_flat(self) -> bool:
        """Whether all values are the same, or not comparable."""
        return not float(self.values.max()) > self.low

    @cached_property
    def centred(self) -> tuple[float, NDArray[np.float64], float]:
        """The mean, the values `(n,)` less it, and the sum of their squares."""
        mean = float(self.values.mean(dtype=np.float64))
        centred = np.asarray(np.subtract(self.values, mean, dtype=np.float64), np.float64).ravel()
        return mean, centred, _dot(centred, centred)


def measured(values: Map | Measured) -> Measured:
    """Returns a map as `Measured`; one that is `Measured` already is returned as it is."""
    return values if isinstance(values, Measured) else Measured(values)


def nss(saliency: Map | Measured, fixations: Map, ddof: int = 0) -> float:
    """Normalised scanpath saliency: mean of the standardised map `(H, W)` where `fixations` `(H, W)` is not 0.

    Args:
        saliency: any range.
        fixations: at least one must not be 0.
        ddof: 0 divides the deviation by N, 1 by N - 1.
    """
    known = measured(saliency)
    if known.is_flat:
        return 0.0
    mean, deviation = _mean_and_deviation(known, ddof)
    fixated = known.values.ravel()[np.flatnonzero(fixations)]  # takes a third of the time that a mask takes
    return float((fixated.mean(dtype=np.float64) - mean) / deviation)


def cc(saliency: Map | Measured, density: Map | Measured) -> float:
    """Pearson's correlation of two maps `(H, W)`, -1 to 1."""
    first, second = measured(saliency), measured(density)
    if first.is_flat or second.is_flat:
        return 0.0
    _, centred, squares = first.centred  # it is enough to centre one of the two
    product = _dot(centred, second.values.astype(np.float64).ravel()) / centred.size
    deviation = (squares / centred.size) ** 0.5
    return float(product / (deviation * _mean_and_deviation(second, 0)[1]))


def sim(saliency: Map | Measured, density: Map | Measured) -> float:
    """Similarity, 0 to 1: what two maps `(H, W)` share, once each is scaled to [0, 1] and then to a sum of 1."""
    first, second = (_shares(known.values, known.low) for known in (measured(saliency), measured(density)))
    return max(1 - cv2.norm(first, second, cv2.NORM_L1) / 2, 0.0)  # equals the sum of minima: both maps sum to 1


def kl_divergence(saliency: Map, density: Map) -> float:
    """Kullback-Leibler divergence of `saliency` from `density`, both `(H, W)` and at least 0, in nats; 0 is best.

    Each map is scaled to a sum of 1, and not to [0, 1] before, as in the MIT benchmark.
    """
    if density.dtype == np.uint8:
        return _kl_from_levels(saliency, density)
    places = np.flatnonzero(density)  # where the density is 0, nothing is added
    if not places.size:
        places = np.arange(density.size)
    predicted, wanted = (_shares(values, 0.0).ravel()[places] for values in (saliency, density))
    return float((wanted * np.log(_KL_EPSILON + wanted / (predicted + _KL_EPSILON))).sum())


def _kl_from_levels(saliency: Map, density: NDArray[np.uint8]) -> float:
    """Takes one logarithm for each of the 256 levels. It leaves out the epsilon inside the outer logarithm.

    That changes the sum by no more than about that epsilon.
    """
    wanted = _share_of_level(density, 0.0)
    own = level_counts(density) * wanted
    entropy = float((own[own > 0] * np.log(wanted[own > 0])).sum())
    if saliency.dtype == np.uint8:
        logarithms = _looked_up(saliency, np.log(_share_of_level(saliency, 0.0) + _KL_EPSILON))
    else:
        shares = _shares(saliency, 0.0)
        shares += _KL_EPSILON
        # Within 4e-15 of NumPy's, and four times as fast where NumPy has no AVX-512.
        logarithms = np.asarray(cv2.log(shares), np.float64)
    return entropy - _dot(_looked_up(density, wanted).ravel(), logarithms.ravel())


def level_counts(levels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Counts how many pixels of a map `(H, W)` have each of the 256 levels."""
    if levels.size > _MOST_COUNTED:
        return np.bincount(levels.ravel(), minlength=_LEVELS)
    counts = cv2.calcHist([np.ascontiguousarray(levels)], [0], None, [_LEVELS], [0, _LEVELS])
    return np.asarray(counts).ravel().astype(np.intp)


def _mean_and_deviation(known: Measured, ddof: int) -> tuple[float, float]:
    values = known.values
    if values.dtype == np.uint8:  # OpenCV's sums are exact, and need no copy
        mean, deviation = cv2.meanStdDev(values)
        return float(mean[0, 0]), float(deviation[0, 0]) * (values.size / (values.size - ddof)) ** 0.5
    average, _, squares = known.centred
    return average, float((squares / (values.size - ddof)) ** 0.5)


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Returns the sum of products. It avoids BLAS, whose threads slow down the threads that score frames."""
    return float(np.einsum("i,i->", a, b))


def _shares(values: Map, low: float) -> NDArray[np.float64]:
    """Subtracts `low` from a map and scales it to a sum of 1. If nothing is left, all values are the same."""
    if values.dtype == np.uint8:
        return _looked_up(values, _share_of_level(values, low))
    shares = values.astype(np.float64)
    if low:
        shares -= low
    total = shares.sum()
    if total > 0:
        shares /= total
    else:
        shares[:] = 1 / values.size
    return shares


def _looked_up(levels: NDArray[np.uint8], table: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(cv2.LUT(np.ascontiguousarray(levels), table), np.float64)


def _share_of_level(values: NDArray[np.uint8], low: float) -> NDArray[np.float64]:
    """Returns the share of the sum that a pixel of each of the 256 levels has. No pixel is below `low`."""
    total = cv2.sumElems(np.ascontiguousarray(values))[0] - low * values.size
    if not total > 0:
        return np.full(_LEVELS, 1 / values.size)
    return (np.arange(_LEVELS) - low).clip(0) / total
