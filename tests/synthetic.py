"""A small dataset in each layout, whose scores are known: frames, densities and fixations.

In every frame one half of the picture is the whole density, and all fixations lie in it: the left half in the first,
third, ... video, the right half in the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.runtime.files.whole_files import make_folder, write_bytes
from salema.runtime.run.dataset_layouts import check_dataset

FIXATIONS = 12  # a frame
_NAMES = {
    "DHF1K": "{:d}",
    "Hollywood-2": "actioncliptest{:05d}_1",
    "UCF-sports": "Diving-Side-{:03d}",
    "other": "clip {:d}",
}
_FIRST_FRAME = {"Hollywood-2": 49}  # frame numbers go on through the film
_DIGITS = {"Hollywood-2": 6}


@dataclass(frozen=True)
class Synthetic:
    """What was written.

    Attributes:
        source: the folder for `--src`.
        truth: the folder for `--gt`.
        videos: the videos' names in the ground truth.
        frame_names: the stems of each video's frames.
        known: mean scores, by metric, under the protocol `exact`, of the densities taken as predictions; those of their
            negatives are 1 less the AUCs, and the negatives of NSS and CC.
    """

    source: Path
    truth: Path
    videos: tuple[str, ...]
    frame_names: tuple[str, ...]
    known: dict[str, float]


def write_dataset(
    root: Path,
    dataset: str,
    *,
    videos: int = 4,
    frames: int = 3,
    size_hw: tuple[int, int] = (48, 64),
    matlab: bool = False,
    first_video: int = 1,
) -> Synthetic:
    """Writes a dataset in the layout of one of `DATASETS`.

    Args:
        root: the folder to write it to.
        dataset: whose layout.
        videos: their number, even and at least 2.
        frames: of each video.
        size_hw: of the pictures; both even, with room for the fixations.
        matlab: whether fixations are MATLAB files only.
        first_video: number of the first video.
    """
    check_dataset(dataset)
    first = _FIRST_FRAME.get(dataset, 1)
    names = tuple(f"{number:0{_DIGITS.get(dataset, 4)}d}" for number in range(first, first + frames))
    truth = root / "annotation" if dataset == "DHF1K" else root
    titles = []
    for video in range(videos):
        title = _NAMES[dataset].format(first_video + video)
        titles.append(f"{int(title):04d}" if dataset == "DHF1K" else title)
        images = {"DHF1K": root / "frames" / title, "other": root / title}.get(dataset, root / title / "images")
        for index, name in enumerate(names):
            is_left = video % 2 == 0
            _write(images / f"{name}.png", picture(index, size_hw, is_left=is_left))
            _write(truth / titles[-1] / f"maps/{name}.png", density(size_hw, is_left=is_left))
            _write_fixation(
                truth / titles[-1] / "fixation", name, fixation(index, size_hw, is_left=is_left), matlab=matlab
            )
    return Synthetic(root, truth, tuple(titles), names, known_scores(size_hw, videos))


def picture(index: int, size_hw: tuple[int, int], *, is_left: bool) -> NDArray[np.uint8]:
    """Returns a frame, uint8 BGR `(H, W, 3)`: moving slopes of blue and green, red in the half with the fixations."""
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    blue, green = (columns * 3 + 11 * index) % 256, (rows * 4 + 7 * index) % 256
    return np.stack([blue, green, density(size_hw, is_left=is_left)], -1).astype(np.uint8)


def density(size_hw: tuple[int, int], *, is_left: bool) -> NDArray[np.uint8]:
    """Returns the density `(H, W)`: 255 in one half, 0 in the other."""
    half = np.zeros(size_hw, np.uint8)
    half[:, : size_hw[1] // 2] = 255
    return half if is_left else 255 - half


def fixation(index: int, size_hw: tuple[int, int], *, is_left: bool) -> NDArray[np.uint8]:
    """Returns the fixation map `(H, W)`: 255 at 12 places of the half, no two in one block of 2 x 2, 0 elsewhere."""
    places = np.zeros(size_hw, np.uint8)
    blocks = places[::2, : size_hw[1] // 2 : 2]
    chosen = np.random.default_rng(index).choice(blocks.size, FIXATIONS, replace=False)
    blocks[np.unravel_index(chosen, blocks.shape)] = 255
    return places if is_left else np.ascontiguousarray(places[:, ::-1])


def known_scores(size_hw: tuple[int, int], videos: int) -> dict[str, float]:
    """Returns the scores of the densities as predictions, under the protocol `exact`.

    At fixations the map is 255. So it is at half of all pixels, and at the fixations of other videos that lie in the
    same half: with V videos, those of V/2 - 1 of V - 1.
    """
    pixels = size_hw[0] * size_hw[1]
    lit, dark = pixels / 2 - FIXATIONS, pixels / 2
    same_half = (videos / 2 - 1) / (videos - 1)
    return {
        "auc_judd": (dark + lit / 2) / (dark + lit),
        "s_auc": 1 - same_half / 2,
        "nss": 1.0,
        "cc": 1.0,
        "sim": 1.0,
        "kl": 0.0,
        "auc_borji": 0.75,
    }


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    make_folder(path.parent)
    write_bytes(path, cv2.imencode(".png", image)[1].tobytes())


def _write_fixation(folder: Path, name: str, places: NDArray[np.uint8], *, matlab: bool) -> None:
    if not matlab:
        _write(folder / f"{name}.png", places)
        return
    from scipy import io

    make_folder(folder / "maps")
    io.savemat(folder / f"maps/{name}.mat", {"I": places > 0})
