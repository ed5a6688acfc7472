"""Photographs with fixations as a dataset that `salema-eval` reads: a video of one frame for each.

Usage: python -m salema.training.shipping.lay_out --src DIR --dst DIR
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.runtime.errors import exit_on_error
from salema.runtime.files.whole_files import make_folder, write_bytes
from salema.training.data.clip import GazeSet
from salema.training.shipping.commands import parser_of, split


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


@exit_on_error("lay_out")
def main() -> None:
    """Lays out what `salema-train` validates on."""
    parser = parser_of(__doc__)
    parser.add_argument("--dst", type=Path, required=True, help="folder to write")
    chosen = parser.parse_args()
    _, held_out = split(chosen.src)
    lay_out(held_out, chosen.dst)


if __name__ == "__main__":
    main()
