"""Maps as files: predictions, densities and fixations, as images or MATLAB files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from salema.benchmarks.maps.grey_png import decode_grey_png
from salema.benchmarks.maps.matlab_file import read_matlab
from salema.runtime.errors import MapError
from salema.runtime.files.bounded_files import MOST_IMAGE_BYTES, read_file
from salema.runtime.files.image_file import decode_image
from salema.runtime.metrics import places_of
from salema.runtime.sources.source import IMAGES
from salema.runtime.wording import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[Any]

MATLAB = ".mat"
MAP_FILES = {*IMAGES, MATLAB}
_LEAST, _MOST = 1e-30, 1e30  # of a map's greatest value: squares of it, and float32, must hold it
_TAKEN = (np.uint8, np.uint16, np.float32, np.float64)  # types that OpenCV resizes


def read_map(path: Path) -> Map:
    """Reads a saliency or density map `(H, W)` as uint8, uint16, float32 or float64, the type of the file.

    Types that OpenCV does not resize become float64.

    Raises:
        MapError: the file is missing, can't be read, has colours, or holds numbers that are no saliency.
        MissingDependencyError: it is a MATLAB file and SciPy is not installed.
    """
    values = read_matlab(path) if path.suffix.lower() == MATLAB else _read_image(path)
    check_map(values, path)
    return values if values.dtype in _TAKEN else values.astype(np.float64)


def check_map(values: Map, path: Path) -> None:
    """Refuses values that are no saliency.

    Raises:
        MapError: there are negative numbers, NaN or infinity among them, or their greatest is too great or too small to
            compute with; its sentence holds `path`.
    """
    if values.dtype.kind not in "fi":
        return
    if not np.isfinite(values).all():
        pixels = counted(int((~np.isfinite(values)).sum()), "pixel")
        raise MapError(f"{path}: holds NaN or infinity at {pixels}; make it anew")
    if values.min() < 0:
        raise MapError(f"{path}: holds negative numbers, down to {values.min():g}; give a map that is 0 or more")
    if (greatest := values.max()) and not _LEAST < greatest < _MOST:
        raise MapError(f"{path}: has {greatest:g} as its greatest value; scale the map, to 1 say")


def read_fixations(path: Path) -> tuple[tuple[int, int], NDArray[np.intp]]:
    """Reads a fixation map; returns its size `(H, W)`, and the indices `(n,)` into the flat map where somebody looked.

    Raises:
        MapError: the file is missing, can't be read, isn't binary (0 and one other value), or is inverted: more than
            half of its pixels are fixated.
        MissingDependencyError: it is a MATLAB file and SciPy is not installed.
    """
    values = read_map(path)
    places = places_of(values)
    levels = values.ravel()[places]
    if levels.size and levels.min() < levels.max():
        raise MapError(
            f"{path}: is no fixation map: it holds {len(np.unique(levels))} values besides 0, and a fixation map one"
            " (is it the density, or was it saved as JPEG?)"
        )
    if places.size > values.size / 2:
        raise MapError(
            f"{path}: is no fixation map: {places.size / values.size:.0%} of its pixels are fixated; is it inverted?"
        )
    return (values.shape[0], values.shape[1]), places


def _read_image(path: Path) -> Map:
    data = read_file(path, MOST_IMAGE_BYTES, MapError)
    grey = decode_grey_png(data)
    if grey is not None:
        return grey
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    image: Map = decode_image(path, data, flags, MapError)
    if image.ndim == 2:  # noqa: PLR2004 - rows and columns
        return image
    if (image != image[..., :1]).any():
        raise MapError(f"{path}: is a picture in colours (a frame, or an overlay?); give a grey map")
    return np.ascontiguousarray(image[..., 0])
