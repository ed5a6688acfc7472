"""The mean of several networks' maps of photographs, and of those of their mirror images: a teacher for `--teacher`.

Usage: python -m salema.training.shipping.mean_maps --src DIR --weights FILE [--weights FILE]... --dst DIR
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from salema.runtime.errors import exit_on_error
from salema.runtime.files.whole_files import make_folder, write_bytes
from salema.runtime.postprocess import to_grey
from salema.runtime.preprocess import to_network_size
from salema.training.data.clip import GazeSet
from salema.training.initial import choose_start
from salema.training.network import ClipNetwork
from salema.training.shipping.commands import parser_of, split

SIZE_HW = (192, 256)


def mean_map(networks: Sequence[ClipNetwork], frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the mean of networks' maps of a frame, uint8 BGR of any size; each map is scaled to a sum of 1 before."""
    small = np.ascontiguousarray(to_network_size(frame, *SIZE_HW))
    both = torch.from_numpy(np.stack([small, small[:, ::-1]]))[:, None]
    maps = []
    for network in networks:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):  # in half the time of FP32 where the CPU has it
            found = network(both, None, torch.zeros(2, dtype=torch.int64))[0][:, 0].float().numpy()
        maps += [found[0], found[1, :, ::-1]]
    shares = [values / values.sum(dtype=np.float64) for values in maps]
    return np.asarray(np.mean(shares, 0), np.float32)


def write_maps(gaze: GazeSet, networks: Sequence[ClipNetwork], folder: Path) -> None:
    """Writes the map of each photograph as 8-bit PNG, where `--teacher` looks for it.

    Raises:
        OutputError: a file can't be written.
        SalemaError: a photograph can't be read.
    """
    for index in range(len(gaze.names)):
        (seen,) = gaze.seen(index)
        name, (stem,) = gaze.maps_of(index)
        make_folder(folder / name)
        grey = to_grey(mean_map(networks, seen.frame))
        write_bytes(folder / name / f"{stem}.png", cv2.imencode(".png", grey)[1].tobytes())


def open_network(weights: str) -> ClipNetwork:
    """Opens weights, as `salema-export` takes them, for photographs one by one."""
    start = choose_start(weights, "auto", Fraction(1), 0, lambda _: None)
    return ClipNetwork(start.architecture, start.weights, start.alpha, 1.0, 0.0).eval()


@exit_on_error("mean_maps")
def main() -> None:
    """Writes the maps of what `salema-train` trains on."""
    parser = parser_of(__doc__)
    parser.add_argument("--weights", action="append", required=True, help="as salema-export takes them")
    parser.add_argument("--dst", type=Path, required=True, help="folder to write")
    chosen = parser.parse_args()
    trained, _ = split(chosen.src)
    write_maps(trained, [open_network(weights) for weights in chosen.weights], chosen.dst)


if __name__ == "__main__":
    main()
