"""Checks the sizes that an archive of weights declares: a few megabytes of ZIP can unfold to gigabytes."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

from numpy.lib import format as npy

from salema.runtime.errors import CheckpointError
from salema.runtime.files.bounded_files import shown_size

MOST_WEIGHT_BYTES = 1 << 30  # SalCLSTM30 with Adam's two averages has 0.6 GB
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def check_unfolded(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuses an archive whose entries declare more bytes than weights can have; no reader reads more than declared."""
    total_bytes = sum(entry.file_size for entry in archive.infolist())
    if total_bytes > MOST_WEIGHT_BYTES:
        raise CheckpointError(
            f"{path}: unfolds to {shown_size(total_bytes)}, and {shown_size(MOST_WEIGHT_BYTES)} are the most that is"
            " read; save the state_dict alone"
        )


def check_arrays(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuses an `.npz` with an array that claims more than its entry holds: NumPy allocates before it reads."""
    for entry in archive.infolist():
        with archive.open(entry) as member:
            read_header = _HEADERS.get(npy.read_magic(member))
            if read_header is None:  # the third version is for named fields, which weights don't have
                raise CheckpointError(f"{path}: {entry.filename} is no array of numbers; get the file again")
            shape, _, dtype = read_header(member)
        if math.prod(shape) * dtype.itemsize > entry.file_size:
            raise CheckpointError(f"{path}: {entry.filename} claims to be {shape}, and is less; get the file again")
