"""Resizes maps as OpenCV does, as MATLAB does, and by half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from salema.runtime.output.bicubic import matlab_bicubic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[Any]

Resize = Literal["bilinear", "area", "bicubic"]

_OPENCV = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}


def resize(values: Map, size_hw: tuple[int, int], how: Resize) -> Map:
    """Resizes a map `(h, w)` to `(H, W)`: `bicubic` as MATLAB does, to float64; others as OpenCV, the type kept."""
    if values.shape == size_hw:
        return values
    if how == "bicubic":
        return matlab_bicubic(values, size_hw)
    resized: Map = cv2.resize(values, size_hw[::-1], interpolation=_OPENCV[how])
    return resized


def halve(values: Map) -> Map:
    """Halves a map's height and width, each value of the result the mean of about four."""
    if min(values.shape) == 1:  # a line has no half
        return values
    halved: Map = cv2.resize(values, (0, 0), fx=0.5, fy=0.5, interpolation=cv2.INTER_LINEAR)
    return halved


def halve_places(places: NDArray[np.bool_] | NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Halves a map of places (bool, or 0 and 255): set where the mean rounds to 1 or more."""
    levels = places.astype(np.uint8) * np.uint8(255) if places.dtype == bool else places
    any_set: NDArray[np.bool_] = (halve(levels) > 0).astype(bool)
    return any_set
