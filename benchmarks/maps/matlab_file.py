"""Reads maps from MATLAB files, as DHF1K has its fixations."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from salema.runtime.errors import MapError, MissingDependencyError, SalemaError, reason
from salema.runtime.files.bounded_files import MOST_IMAGE_BYTES, read_file, shown_size
from salema.runtime.files.image_file import check_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAME = "I"  # the variable that DHF1K's files hold
_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_NUMBERS = {"double", "single", "logical", "sparse"} | _INTEGERS
_HEAD_BYTES, _COMPRESSED = 128, 15  # of the format of version 5, which is that of -v6 and -v7
_BLOCK_BYTES = 1 << 16


def read_matlab(path: Path) -> NDArray[Any]:
    """Reads the matrix `I` `(H, W)` of numbers; logical ones become uint8.

    Raises:
        MapError: the file can't be read, inflates to more than a map can have, or holds no such matrix.
        MissingDependencyError: SciPy is not installed.
    """
    try:
        from scipy import io as matlab  # noqa: PLC0415 - in the extra `eval`
        from scipy import sparse  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading MATLAB files needs SciPy ({reason(error)}); install it with: pip install 'salema[eval]'"
        ) from error
    data = read_file(path, MOST_IMAGE_BYTES, MapError)
    try:
        _check_declared(path, data, matlab)
        values = matlab.loadmat(io.BytesIO(data), variable_names=[_NAME])[_NAME]
        values = np.asarray(values.todense()) if sparse.issparse(values) else values
    except SalemaError:
        raise
    except NotImplementedError as error:
        raise MapError(f"{path}: is a MATLAB 7.3 file; save it in MATLAB with -v7") from error
    except Exception as error:  # SciPy's parser raises many kinds for a damaged file
        raise MapError(f"{path}: can't be read as a MATLAB file ({reason(error)})") from error
    if values.ndim != 2 or values.dtype.kind not in "buif" or not values.size:  # noqa: PLR2004 - rows and columns
        raise MapError(f"{path}: {_NAME} is {values.dtype} {values.shape}; numbers (H, W) expected")
    return values.astype(np.uint8) if values.dtype == bool else values


def _check_declared(path: Path, data: bytes, matlab: ModuleType) -> None:
    """Refuses a file whose declared or inflated size is too great, before it is read into memory."""
    declared = {name: (shape, kind) for name, shape, kind in matlab.whosmat(io.BytesIO(data))}
    if _NAME not in declared:
        raise MapError(f"{path}: holds {', '.join(declared) or 'nothing'}; a map in the variable {_NAME} expected")
    shape, kind = declared[_NAME]
    if len(shape) != 2 or kind not in _NUMBERS:  # noqa: PLR2004 - rows and columns
        raise MapError(f"{path}: {_NAME} is {kind} {shape}; numbers (H, W) expected")
    check_pixels(path, (shape[1], shape[0]), MapError)
    if _unfolds_to_more(data):
        raise MapError(f"{path}: unfolds to more than {shown_size(MOST_IMAGE_BYTES)}, which no map has; make it anew")


def _unfolds_to_more(data: bytes) -> bool:
    """Whether the compressed parts inflate to more than `MOST_IMAGE_BYTES`."""
    order = "<" if data[126:128] == b"IM" else ">"
    view, at, total_bytes = memoryview(data), _HEAD_BYTES, 0
    while at + 8 <= len(data):
        kind, length = struct.unpack_from(order + "II", data, at)
        if kind == _COMPRESSED:
            total_bytes += _unfolded_bytes(view[at + 8 : at + 8 + length], MOST_IMAGE_BYTES - total_bytes)
        if total_bytes > MOST_IMAGE_BYTES:
            return True
        at += 8 + length
    return False


def _unfolded_bytes(packed: memoryview, enough: int) -> int:
    """Counts the bytes that a zlib stream inflates to, up to a little more than `enough`, and keeps none."""
    stream, total_bytes = zlib.decompressobj(), 0
    for start in range(0, len(packed), _BLOCK_BYTES):
        waiting: bytes | memoryview = packed[start : start + _BLOCK_BYTES]
        while len(waiting) and total_bytes <= enough:
            total_bytes += len(stream.decompress(waiting, _BLOCK_BYTES))
            waiting = stream.unconsumed_tail
    return total_bytes
