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
_WORD = np.dtype(np.uint64).itemsize
_MOST_COUNTED = 2**24  # OpenCV counts in float32


class Measured:
    """A map, and the numbers that several metrics need of it, each computed once.

    Args:
        values: `(H, W)`, finite. Sums over uint8 maps are those of whole numbers, exactly.
    """

    def __init__(self, values: Map) -> None:
        self.values = values
        self.has_levels = values.dtype == np.uint8

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """How many pixels of a uint8 map have each of the 256 levels."""
        return count_levels(self.values, _LEVELS)

    @cached_property
    def low(self) -> float:
        """The least value."""
        return float(self.values.min())

    @cached_property
    def high(self) -> float:
        """The greatest value."""
        return float(self.values.max())

    @property
    def is_flat(self) -> bool:
        """Whether all values are the same, or not comparable."""
        return not self.high > self.low

    @cached_property
    def mean(self) -> float:
        """The mean value."""
        if self.has_levels:
            return self._level_sum / self.values.size
        if self.values.dtype == np.float32:  # OpenCV sums in float64, and NumPy takes six times as long for that
            return float(cv2.sumElems(self.values)[0] / self.values.size)
        return float(self.values.mean(dtype=np.float64))

    @property
    def offset(self) -> float:
        """What `doubles` are less than the values: the mean, or nothing for uint8, of which all sums are exact."""
        return 0.0 if self.has_levels else self.mean

    @cached_property
    def doubles(self) -> NDArray[np.float64]:
        """The values less `offset`, `(H, W)`."""
        if self.has_levels:
            return self.values.astype(np.float64)
        return np.asarray(np.subtract(self.values, self.mean, dtype=np.float64), np.float64)

    @cached_property
    def squares(self) -> float:
        """The sum of the squared differences from the mean."""
        if not self.has_levels:
            return float(cv2.norm(self.doubles, cv2.NORM_L2SQR))
        size, squared = self.values.size, round(cv2.norm(self.values, cv2.NORM_L2SQR))  # it is the square of a root
        return (size * squared - self._level_sum**2) / size

    @cached_property
    def _level_sum(self) -> int:
        return int(cv2.sumElems(self.values)[0])


def measured(values: Map | Measured) -> Measured:
    """Returns a map as `Measured`; one that is `Measured` already is returned as it is."""
    return values if isinstance(values, Measured) else Measured(values)


def places_of(fixations: Map) -> NDArray[np.intp]:
    """Returns the indices `(n,)` into the flat map of the places that are not 0 in a map `(H, W)`.

    Indices `(n,)` are returned as they are, so that they are searched for once.
    """
    if fixations.ndim == 1:
        return fixations
    flat = fixations.ravel()
    if flat.itemsize > 1 or flat.size % _WORD:
        return np.flatnonzero(flat != 0)
    # Almost all are 0: to look at eight together takes half the time.
    words = np.flatnonzero(flat.view(np.uint64) != 0)
    near = (_WORD * words[:, None] + np.arange(_WORD)).ravel()
    places: NDArray[np.intp] = near[flat[near] != 0]
    return places


def nss(saliency: Map | Measured, fixations: Map, ddof: int = 0) -> float:
    """Normalised scanpath saliency: mean of the standardised map `(H, W)` where somebody looked.

    Args:
        saliency: any range.
        fixations: see `places_of`; at least one.
        ddof: 0 divides the deviation by N, 1 by N - 1.
    """
    known = measured(saliency)
    if known.is_flat:
        return 0.0
    deviation = (known.squares / (known.values.size - ddof)) ** 0.5
    fixated = known.values.ravel()[places_of(fixations)]
    return float((fixated.mean(dtype=np.float64) - known.mean) / deviation)


def cc(saliency: Map | Measured, density: Map | Measured) -> float:
    """Pearson's correlation of two maps `(H, W)`, -1 to 1."""
    first, second = measured(saliency), measured(density)
    if first.is_flat or second.is_flat:
        return 0.0
    product = _dot(first.doubles, second.doubles)
    if first.has_levels and second.has_levels:  # else one of the two is centred, which is enough
        product -= first.mean * second.mean * first.values.size
    return float(product / (first.squares * second.squares) ** 0.5)


def sim(saliency: Map | Measured, density: Map | Measured) -> float:
    """Similarity, 0 to 1: what two maps `(H, W)` share, once each is scaled to [0, 1] and then to a sum of 1."""
    first, second = measured(saliency), measured(density)
    (one, less), (other, more) = (_share_of_doubles(known) for known in (first, second))
    differences = cv2.addWeighted(first.doubles, one, second.doubles, -other, less - more)
    return max(1 - cv2.norm(differences, cv2.NORM_L1) / 2, 0.0)  # equals the sum of minima: both maps sum to 1


def kl_divergence(saliency: Map | Measured, density: Map | Measured) -> float:
    """Kullback-Leibler divergence of `saliency` from `density`, both `(H, W)`, in nats; 0 is best.

    Each map is scaled to a sum of 1, and not to [0, 1] before, as in the MIT benchmark. What is below 0 counts as 0.
    """
    found, wanted = measured(saliency), measured(density)
    if wanted.has_levels:
        return _kl_from_levels(found, wanted)
    places = np.flatnonzero(wanted.values)  # where the density is 0, nothing is added
    if not places.size:
        places = np.arange(wanted.values.size)
    predicted, given = (_shares(known, known.values).ravel()[places] for known in (found, wanted))
    return float((given * np.log(_KL_EPSILON + given / (predicted + _KL_EPSILON))).sum())


def _kl_from_levels(found: Measured, wanted: Measured) -> float:
    """Takes the wanted map's own entropy from the counts of its 256 levels, and of the other map one logarithm each.

    It leaves out the epsilon inside the outer logarithm, which changes the sum by no more than about that epsilon.
    """
    share = _share_of_level(wanted)
    own = float((wanted.counts * share * np.log(np.where(share > 0, share, 1))).sum())
    if found.has_levels:
        predicted = _looked_up(found.values, np.log(_share_of_level(found) + _KL_EPSILON))
    else:
        predicted = _shares(found, found.values)
        predicted += _KL_EPSILON
        # Within 4e-15 of NumPy's, and twice as fast with AVX-512, four times without.
        cv2.log(predicted, predicted)
    total = wanted.mean * wanted.values.size
    return own - (_dot(wanted.doubles, predicted) / total if total > 0 else float(predicted.mean()))


def count_levels(levels: NDArray[np.uint8] | NDArray[np.uint16], size: int) -> NDArray[np.intp]:
    """Counts how many pixels of a map, of any shape, have each level; all are less than `size`."""
    if levels.size > _MOST_COUNTED:
        return np.bincount(levels.ravel(), minlength=size)
    row: Map = np.ascontiguousarray(levels).reshape(1, -1)  # rows of one pixel take three times as long
    counts = cv2.calcHist([row], [0], None, [size], [0, size])
    return np.asarray(counts).ravel().astype(np.intp)


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Returns the sum of products. It avoids BLAS, whose threads slow down the threads that score frames."""
    return float(np.einsum("i,i->", a.ravel(), b.ravel()))


def _share_of_doubles(known: Measured) -> tuple[float, float]:
    """Returns what to multiply `doubles` by, and what to add, so that they begin at 0 and sum to 1."""
    total = (known.mean - known.low) * known.values.size
    if known.is_flat or not total > 0:
        return 0.0, 1 / known.values.size
    return 1 / total, (known.offset - known.low) / total


def _shares(known: Measured, values: Map) -> NDArray[np.float64]:
    """Returns the shares of the map's sum that some of its values have, `(h, w)`; of nothing each has the same."""
    shares = values.astype(np.float64)
    if known.low < 0:  # NumPy's maximum takes three times as long
        cv2.threshold(shares, 0, 0, cv2.THRESH_TOZERO, shares)
    total = _sum_above_0(known)
    if total > 0:
        shares *= 1 / total
    else:
        shares[:] = 1 / known.values.size
    return shares


def _sum_above_0(known: Measured) -> float:
    if known.high <= 0:
        return 0.0
    total = known.mean * known.values.size
    return total if known.low >= 0 else (total + cv2.norm(known.values, cv2.NORM_L1)) / 2


def _looked_up(levels: NDArray[np.uint8], table: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(cv2.LUT(np.ascontiguousarray(levels), table), np.float64)


def _share_of_level(known: Measured) -> NDArray[np.float64]:
    """Returns the share of the sum that a pixel of each of the 256 levels has."""
    total = known.mean * known.values.size
    if not total > 0:
        return np.full(_LEVELS, 1 / known.values.size)
    return np.arange(_LEVELS) / total
