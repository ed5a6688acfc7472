"""Where the datasets of the published table keep their frames, and what predictions of them are called.

Layouts and names are the published code's, with two liberties: numbers may have any padding, and a path that already
ends in `<dataset>/testing` is not nested twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from natsort import natsorted, ns

from salema.runtime.errors import UsageError, VideoError
from salema.runtime.sources import IMAGES

if TYPE_CHECKING:
    from collections.abc import Iterable

DATASETS = ("DHF1K", "Hollywood-2", "UCF-sports", "other")
NAMINGS = ("published", "groundtruth")
IN_IMAGES = ("Hollywood-2", "UCF-sports")  # whose frames lie in <video>/images


@dataclass(frozen=True)
class FrameFolder:
    """One video of a dataset, as images.

    Attributes:
        name: the video's name in the dataset.
        frames: its images, in order.
        maps: where the map of each frame goes, in the same order.
    """

    name: str
    frames: tuple[Path, ...]
    maps: tuple[Path, ...]


def check_dataset(dataset: str, *, naming: str = "published", start: int | None = None, end: int | None = None) -> None:
    """Refuses options that can't be right, whatever the folders hold.

    Raises:
        UsageError: an option has no such value, or numbers were given for a dataset that has none.
    """
    for option, value, known in (("dataset", dataset, DATASETS), ("naming", naming, NAMINGS)):
        if value not in known:
            raise UsageError(f"--{option} {value}: not one of {', '.join(known)}")
    if dataset != "DHF1K" and (start is not None or end is not None):
        raise UsageError(f"--start and --end number the videos of DHF1K; {dataset} has names")


def list_videos(
    dataset: str,
    source: Path,
    target: Path,
    weights: str,
    *,
    naming: str = "published",
    start: int | None = None,
    end: int | None = None,
) -> list[FrameFolder]:
    """Lists the videos of a dataset, and where their maps go.

    Args:
        dataset: one of `DATASETS`; `other` is any folder of folders of images.
        source: the dataset's folder, of `frames/<number>` for DHF1K, else of `<video>/images` or `<video>`.
        target: folder for the predictions.
        weights: name of the checkpoint, which the published names hold.
        naming: `published` counts frames from 1; `groundtruth` keeps the frames' names, as a submission needs.
        start: least number of a video of DHF1K.
        end: greatest number of a video of DHF1K, itself included.

    Raises:
        UsageError: an option has no such value, or numbers were given for a dataset that has none.
        VideoError: there is no such folder, or no video in it.
    """
    check_dataset(dataset, naming=naming, start=start, end=end)
    root = source / "frames" if dataset == "DHF1K" and (source / "frames").is_dir() else source
    if not root.is_dir():
        raise VideoError(f"{root}: no such folder; name the one that holds the videos' folders")
    folders = _natural(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if dataset == "DHF1K":
        folders = [path for path in folders if is_wanted(path.name, start, end)]
    stem = Path(weights).name.partition(".")[0].replace(":", "-")
    found = (_video(dataset, path, target, f"{stem}_predictions", naming) for path in folders)
    videos = [video for video in found if video is not None]
    if not videos:
        where = "<video>/images/" if dataset in IN_IMAGES else "<video>/"
        raise VideoError(f"{root}: holds no video of {dataset} that was asked for (images in {where})")
    return videos


def _natural(paths: Iterable[Path]) -> list[Path]:
    return natsorted(paths, key=lambda path: path.name, alg=ns.INT)


def is_wanted(name: str, start: int | None, end: int | None) -> bool:
    """Whether a folder of DHF1K is a video, and its number in the range, `end` included."""
    return name.isdecimal() and (start or 0) <= int(name) and (end is None or int(name) <= end)


def _video(dataset: str, folder: Path, target: Path, predictions: str, naming: str) -> FrameFolder | None:
    """Returns a folder's video, or None where it holds no image: shots without frames exist."""
    holds = folder / "images" if dataset in IN_IMAGES else folder
    if not holds.is_dir():
        return None
    frames = tuple(_natural(path for path in holds.iterdir() if path.suffix.lower() in IMAGES))
    if not frames:
        return None
    into, name = _published(dataset, folder.name, target, predictions)
    if naming == "groundtruth":
        into = target / (f"{int(folder.name):04d}" if dataset == "DHF1K" else folder.name)
        return FrameFolder(folder.name, frames, tuple(into / f"{frame.stem}.png" for frame in frames))
    return FrameFolder(folder.name, frames, tuple(into / name.format(count) for count in range(1, len(frames) + 1)))


def _published(dataset: str, video: str, target: Path, predictions: str) -> tuple[Path, str]:
    """Returns the folder of a video's maps, and the pattern of their names, as the published code has them."""
    if dataset == "DHF1K":
        return target / predictions / f"{int(video):04d}", "{:04d}.png"
    if dataset == "other":
        return target / predictions / video, "{:05d}.png"
    nested = target.parts[-2:] == (dataset, "testing")
    home = target if nested else target / dataset / "testing"
    # The published code takes the last character of the video's name off; braces in names are not placeholders.
    return home / video / predictions, re.sub(r"[{}]", r"\g<0>\g<0>", video[:-1]) + "{:05d}.png"
