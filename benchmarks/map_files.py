"""Maps as files: predictions, densities and fixations, as images or MATLAB files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from salema.runtime.errors import MapError, MissingDependencyError, reason
from salema.runtime.image_reader import breaks_off
from salema.runtime.sources import IMAGES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Map = NDArray[Any]

MATLAB = ".mat"
MAP_FILES = {*IMAGES, MATLAB}
_TAKEN = (np.uint8, np.uint16, np.float32, np.float64)  # what OpenCV resizes
_MATLAB_NAME = "I"  # the variable that DHF1K's files hold


def read_map(path: Path) -> Map:
    """Reads a saliency or density map `(H, W)` as uint8, uint16, float32 or float64, whatever the file has.

    Types of numbers that OpenCV does not resize become float64.

    Raises:
        MapError: the file is missing, can't be read, is in colours, or holds negative numbers, NaN or infinity.
        MissingDependencyError: it is MATLAB's and SciPy is not installed.
    """
    values = _read_matlab(path) if path.suffix.lower() == MATLAB else _read_image(path)
    check_map(values, path)
    return values if values.dtype in _TAKEN else values.astype(np.float64)


def check_map(values: Map, path: Path) -> None:
    """Refuses values that are no saliency.

    Raises:
        MapError: there are negative numbers, NaN or infinity among them; its sentence holds `path`.
    """
    if values.dtype.kind not in "fi":
        return
    if not np.isfinite(values).all():
        raise MapError(f"{path}: holds NaN or infinity at {int((~np.isfinite(values)).sum())} pixels; make it anew")
    if values.min() < 0:
        raise MapError(f"{path}: holds negative numbers, down to {values.min():g}; give a map that is 0 or more")


def read_fixations(path: Path) -> NDArray[np.bool_]:
    """Reads a fixation map as bool `(H, W)`, set where somebody looked.

    Raises:
        MapError: the file is missing, can't be read, or isn't binary: 0 and one other value.
        MissingDependencyError: it is MATLAB's and SciPy is not installed.
    """
    values = read_map(path)
    fixated: NDArray[np.bool_] = values > 0
    levels = np.unique(values[fixated])
    if len(levels) > 1:
        raise MapError(
            f"{path}: is no fixation map: it holds {len(levels)} values besides 0, and a fixation map one"
            " (is it the density, or was it saved as JPEG?)"
        )
    return fixated


def _read_image(path: Path) -> Map:
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise MapError(f"{path}: can't be read ({reason(error)})") from error
    if breaks_off(data):
        raise MapError(f"{path}: breaks off; copy or make it anew")
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(data, flags) if data.size else None
    except cv2.error:  # more pixels than OpenCV takes
        image = None
    if image is None:
        raise MapError(f"{path}: can't be read as an image; copy or make it anew")
    if image.ndim == 2:  # noqa: PLR2004 - rows and columns
        return image
    if (image != image[..., :1]).any():
        raise MapError(f"{path}: is a picture in colours (a frame, or an overlay?); give a grey map")
    return np.ascontiguousarray(image[..., 0])


def _read_matlab(path: Path) -> Map:
    try:
        from scipy import io, sparse  # noqa: PLC0415 - in the extra `eval`
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading MATLAB files needs SciPy ({reason(error)}); install it with: pip install 'salema[eval]'"
        ) from error
    try:
        found = io.loadmat(path)
    except NotImplementedError as error:
        raise MapError(f"{path}: is a MATLAB 7.3 file; save it in MATLAB with -v7") from error
    except OSError as error:
        raise MapError(f"{path}: can't be read ({reason(error)})") from error
    except Exception as error:  # whatever its parser meets in a damaged file
        raise MapError(f"{path}: can't be read as a MATLAB file ({reason(error)})") from error
    names = [name for name in found if not name.startswith("__")]
    if _MATLAB_NAME not in names:
        raise MapError(f"{path}: holds {', '.join(names) or 'nothing'}; a map in the variable {_MATLAB_NAME} expected")
    values = found[_MATLAB_NAME]
    values = np.asarray(values.todense()) if sparse.issparse(values) else values
    if values.ndim != 2 or values.dtype.kind not in "buif" or not values.size:  # noqa: PLR2004
        raise MapError(f"{path}: {_MATLAB_NAME} is {values.dtype} {values.shape}; numbers (H, W) expected")
    return values.astype(np.uint8) if values.dtype == bool else values
