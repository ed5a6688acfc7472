"""Numbers that describe a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Measures:
    """Numbers that describe a map. Positions are in pixels of the source frame; (0, 0) is the middle of the first one.

    Attributes:
        peak: the map's greatest value.
        peak_x: column of the first pixel with that value.
        peak_y: row of that pixel.
        centre_x: column of the map's centre of mass.
        centre_y: row of the centre of mass.
        entropy_bits: Shannon entropy of the map as a distribution; at most log2 of its number of pixels.
    """

    peak: float
    peak_x: float
    peak_y: float
    centre_x: float
    centre_y: float
    entropy_bits: float


def measure(saliency: NDArray[np.float32], frame_hw: tuple[int, int]) -> Measures:
    """Measures a raw map `(H, W)` of a frame of size `frame_hw`; a map of zeros counts as uniform."""
    weights = saliency.astype(np.float64)
    total = weights.sum()
    share = weights / total if total > 0 else np.full(weights.shape, 1 / weights.size)
    row, column = np.unravel_index(int(saliency.argmax()), saliency.shape)
    rows, columns = (np.arange(size) for size in saliency.shape)
    known = share[share > 0]
    return Measures(
        peak=float(saliency.max()),
        peak_x=_in_source(float(column), saliency.shape[1], frame_hw[1]),
        peak_y=_in_source(float(row), saliency.shape[0], frame_hw[0]),
        centre_x=_in_source(float(share.sum(axis=0) @ columns), saliency.shape[1], frame_hw[1]),
        centre_y=_in_source(float(share.sum(axis=1) @ rows), saliency.shape[0], frame_hw[0]),
        entropy_bits=float(-(known * np.log2(known)).sum()) + 0.0,
    )


def _in_source(place: float, size: int, source: int) -> float:
    """Converts a position in a map to the source frame; their edges coincide."""
    return (place + 0.5) * source / size - 0.5
