"""Where the datasets of the published table keep their frames, and where predictions of them go.

docs/datasets.md shows every layout. Layouts and names are the published code's, with two differences: numbers may have
any padding, and a path that already ends in `<dataset>/testing` is not nested twice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from salema.runtime.errors import UsageError, VideoError
from salema.runtime.files.many_requests import at_a_time, each
from salema.runtime.files.natural import by_name
from salema.runtime.files.remote_path import is_remote, location
from salema.runtime.sources.source import IMAGES, VIDEOS, Source

DATASETS = ("DHF1K", "Hollywood-2", "UCF-sports", "other")
NAMINGS = ("published", "groundtruth")
_PLACES = {  # where a dataset keeps its videos
    "DHF1K": "images in frames/<number>/, or video/<number>.AVI",
    **dict.fromkeys(("Hollywood-2", "UCF-sports"), "images in <video>/images/"),
    "other": "images in <video>/",
}
_COUNTED = "{:04d}.png"  # DHF1K's frames and their maps
IN_IMAGES = ("Hollywood-2", "UCF-sports")  # their frames are in <video>/images


@dataclass(frozen=True)
class FrameFolder:
    """One video of a dataset: images, or a video file as DHF1K distributes it.

    Attributes:
        name: the video's name in the dataset.
        frames: its images, in order. For a video file, the names they would have (`001.AVI/0001.png`), as many as its
            header says.
        maps: the file for the map of each frame, in the same order.
        film: the video file; None if the frames are images.
    """

    name: str
    frames: tuple[Path, ...]
    maps: tuple[Path, ...]
    film: Path | None = None

    @property
    def source(self) -> Source:
        """The source to play. A video file may hold a few frames more or less than its header says."""
        if self.film is not None:
            return Source("video", location(self.film), self.name, of_dataset=True)
        return Source("images", str(self.frames[0].parent), self.name, self.frames, of_dataset=True)

    @property
    def folder(self) -> Path:
        """The folder for the maps."""
        return self.maps[0].parent

    def map_name(self, number: int) -> str:
        """Returns the file name of a frame's map; frames count from 1."""
        return _COUNTED.format(number) if self.film else self.maps[number - 1].name

    def frame_path(self, number: int) -> Path:
        """Returns the frame's image, or the name it would have; frames count from 1."""
        return self.film / _COUNTED.format(number) if self.film else self.frames[number - 1]


def check_dataset(dataset: str, *, naming: str = "published", start: int | None = None, end: int | None = None) -> None:
    """Checks the options that don't depend on what the folders hold.

    Raises:
        UsageError: an option has no such value, or the dataset's videos have no numbers.
    """
    for option, value, known in (("dataset", dataset, DATASETS), ("naming", naming, NAMINGS)):
        if value not in known:
            raise UsageError(f"--{option} {value}: not one of {', '.join(known)}")
    if dataset != "DHF1K" and (start is not None or end is not None):
        raise UsageError(f"--start and --end are for DHF1K, whose videos have numbers; {dataset} has names")


def list_videos(
    dataset: str,
    source: Path,
    target: Path,
    weights: str,
    *,
    naming: str = "published",
    start: int | None = None,
    end: int | None = None,
    films: bool = True,
) -> list[FrameFolder]:
    """Lists the videos of a dataset, and where their maps go. docs/datasets.md shows the layouts.

    `naming` is `published`, which counts frames from 1, or `groundtruth`, which keeps the frames' names, as a
    submission needs. `weights` is the checkpoint's name, which is part of the published names. `start` and `end` are
    numbers of DHF1K's videos, both included. With `films` its video files are read if there are no frames.

    Raises:
        UsageError: see `check_dataset`.
        VideoError: the folder doesn't exist, or holds no such video, or two of one number.
    """
    check_dataset(dataset, naming=naming, start=start, end=end)
    root = _root(dataset, source)
    named = partial(_named, dataset, target, f"{Path(weights).name.partition('.')[0].replace(':', '-')}_predictions")
    folders = (path for path in _visible(root) if path.is_dir())
    folders = (path for path in folders if dataset != "DHF1K" or is_wanted(path.name, start, end))
    images = each(lambda path: (path, _images(dataset, path)), folders, at_a_time(root))
    videos = [named(naming, path.name, frames) for path, frames in images if frames]
    if not videos and dataset == "DHF1K" and films:
        wanted = (film for film in _films(source) if is_wanted(film.stem, start, end))
        videos = [replace(named(naming, film.stem, film_frames(film)), film=film) for film in wanted]
    if not videos:
        none = "no video" if dataset == "other" else f"none of the {dataset} videos asked for"
        raise VideoError(f"{root}: holds {none} (expected: {_PLACES[dataset]})")
    return _each_in_its_own(videos, root)


def _each_in_its_own(videos: list[FrameFolder], root: Path) -> list[FrameFolder]:
    """Returns the videos; refuses two videos of one number, such as 1 and 0001, or 001.AVI and 001.mp4."""
    taken: dict[Path, FrameFolder] = {}
    for video in videos:
        if (other := taken.setdefault(video.folder, video)) is not video:
            names = " and ".join(each.film.name if each.film else each.name for each in (other, video))
            home = video.film.parent if video.film else root
            raise VideoError(f"{home}: holds {names}, which are the same video; rename or remove one of them")
    return videos


def check_targets(videos: Sequence[FrameFolder]) -> None:
    """Refuses a folder for maps that holds frames or video files of the dataset.

    Raises:
        UsageError: there is such a folder.
    """
    sources = {_real((video.film or video.frames[0]).parent) for video in videos}
    for video in videos:
        if _real(video.folder) in sources:
            raise UsageError(
                f"--dst: the maps of {video.name} would go into {video.folder}, among the dataset's own files;"
                " choose another --dst"
            )


def _real(folder: Path) -> object:
    return folder if is_remote(folder) else os.path.realpath(folder)


def _root(dataset: str, source: Path) -> Path:
    root = testing_folder(dataset, source)
    root = root / "frames" if dataset == "DHF1K" and (root / "frames").is_dir() else root
    if not root.is_dir():
        raise VideoError(f"{root}: no such folder; name the one that holds the videos' folders")
    return root


def testing_folder(dataset: str, root: Path) -> Path:
    """Returns the folder of a dataset's videos; the same rule holds for `--src`, `--gt` and `--pred`.

    For Hollywood-2 and UCF-sports it is `<dataset>/testing` or `testing`, if one exists. Otherwise it is `root`.
    """
    inside = (root / dataset / "testing", root / "testing") if dataset in IN_IMAGES else ()
    return next((folder for folder in inside if folder.is_dir()), root)


def _films(source: Path) -> list[Path]:
    """Lists DHF1K's video files, `video/001.AVI` and so on; the source may also be the folder `video` itself."""
    folder = source / "video" if (source / "video").is_dir() else source
    return [path for path in _visible(folder) if path.suffix.lower() in VIDEOS and path.is_file()]


def film_frames(film: Path) -> tuple[Path, ...]:
    """Returns the names a video's frames would have as images; one if it can't be read: its run will report that.

    One also for a video at a URL, which is counted when it is fetched.
    """
    first = film / _COUNTED.format(1)
    if is_remote(film):
        return (first,)
    from salema.runtime.video.video_reader import VideoReader  # noqa: PLC0415 - scoring maps needs no PyAV

    try:
        with VideoReader(film) as reader:
            count = reader.frame_count or 1
    except VideoError:
        count = 1
    return tuple(film / _COUNTED.format(number) for number in range(1, count + 1))


def _visible(folder: Path) -> list[Path]:
    """Lists a folder in natural order, without hidden entries such as macOS's `._0001.png`."""
    return by_name(path for path in folder.iterdir() if not path.name.startswith("."))


def is_wanted(name: str, start: int | None, end: int | None) -> bool:
    """Whether the name of a folder of DHF1K is a number in the range, `end` included."""
    return name.isdecimal() and (start or 0) <= int(name) and (end is None or int(name) <= end)


def _images(dataset: str, folder: Path) -> tuple[Path, ...]:
    home = folder / "images" if dataset in IN_IMAGES else folder
    if not home.is_dir():
        return ()
    return tuple(path for path in _visible(home) if path.suffix.lower() in IMAGES and not path.is_dir())


def _named(
    dataset: str, target: Path, predictions: str, naming: str, video: str, frames: tuple[Path, ...]
) -> FrameFolder:
    into, name = _published(dataset, video, target, predictions)
    if naming == "groundtruth":
        into = target / (f"{int(video):04d}" if dataset == "DHF1K" else video)
        return FrameFolder(video, frames, tuple(into / f"{frame.stem}.png" for frame in frames))
    return FrameFolder(video, frames, tuple(into / name.format(count) for count in range(1, len(frames) + 1)))


def _published(dataset: str, video: str, target: Path, predictions: str) -> tuple[Path, str]:
    """Returns the folder of a video's maps, and the pattern of their names, as the published code has them."""
    if dataset == "DHF1K":
        return target / predictions / f"{int(video):04d}", _COUNTED
    if dataset == "other":
        return target / predictions / video, "{:05d}.png"
    nested = target.parts[-2:] == (dataset, "testing")
    home = target if nested else target / dataset / "testing"
    # The published code takes the last character of the video's name off; braces in names are not placeholders.
    return home / video / predictions, re.sub(r"[{}]", r"\g<0>\g<0>", video[:-1]) + "{:05d}.png"
