"""Photographs with fixations as a dataset that `salema-eval` reads: a video of one frame for each."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.runtime.files.whole_files import make_folder, write_bytes
from salema.training.data.clip import GazeSet


def lay_out(gaze: GazeSet, folder: Path) -> None:
    """Writes each photograph of a set in the layout `other`: its frame, its density, and its fixations, as PNG.

    Raises:
        OutputError: a file can't be written.
        SalemaError: a photograph can't be read.
    """
    for index, name in enumerate(gaze.names):
        (seen,) = gaze.seen(index)
        assert seen.density is not None
        assert seen.fixated is not None
        video = folder / Path(name).stem
        _write(video / "0001.png", seen.frame)
        _write(video / "maps/0001.png", np.rint(seen.density * 255).astype(np.uint8))
        _write(video / "fixation/0001.png", seen.fixated.astype(np.uint8) * 255)


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    make_folder(path.parent)
    write_bytes(path, cv2.imencode(".png", image)[1].tobytes())
