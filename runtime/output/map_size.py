"""Maps at the size of the source."""

from __future__ import annotations

from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from salema.runtime.errors import UsageError
from salema.runtime.output.bicubic import matlab_bicubic
from salema.runtime.postprocess import to_levels

Levels = NDArray[np.uint8] | NDArray[np.uint16]

MapSize = Literal["network", "source"]
MAP_SIZES: tuple[MapSize, ...] = get_args(MapSize)


def check_map_size(map_size: str) -> None:
    """Raises UsageError unless `map_size` is one of `MAP_SIZES`."""
    if map_size not in MAP_SIZES:
        raise UsageError(f"--map-size {map_size}: not one of {', '.join(MAP_SIZES)}")


def levels_at(
    saliency: NDArray[np.float32],
    limits: tuple[np.float32, np.float32],
    size_hw: tuple[int, int],
    bits: int = 8,
) -> Levels:
    """Returns a map `(h, w)` as levels of 8 or 16 bits at another size `(H, W)`.

    It is stretched from its limits, resized as DHF1K's benchmark does (MATLAB's bicubic, in double), clipped to black
    and white, and rounded once. At its own size it is what `to_levels` gives.
    """
    if size_hw == saliency.shape:
        return to_levels(saliency, limits, bits)
    low, high = map(np.float64, limits)
    kind, most = (np.uint8, 255) if bits == 8 else (np.uint16, 65535)  # noqa: PLR2004
    resized = np.zeros(size_hw)
    if high > low:
        resized = matlab_bicubic((saliency - low) / (high - low) * most, size_hw)
    return cast("Levels", np.floor(resized.clip(0, most) + 0.5).astype(kind))
