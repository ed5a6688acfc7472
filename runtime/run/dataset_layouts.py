"""Where the datasets of the published table keep their frames, and what predictions of them are called.

docs/datasets.md shows every layout.

Layouts and names are the published code's, with two liberties: numbers may have any padding, and a path that already
ends in `<dataset>/testing` is not nested twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from salema.runtime.errors import UsageError, VideoError
from salema.runtime.files.natural import by_name
from salema.runtime.sources.source import IMAGES, VIDEOS, Source

DATASETS = ("DHF1K", "Hollywood-2", "UCF-sports", "other")
NAMINGS = ("published", "groundtruth")
_PLACES = {  # where a dataset's videos lie
    "DHF1K": "images in frames/<number>/, or video/<number>.AVI",
    **dict.fromkeys(("Hollywood-2", "UCF-sports"), "images in <video>/images/"),
    "other": "images in <video>/",
}
_COUNTED = "{:04d}.png"  # DHF1K's frames, and maps of them
IN_IMAGES = ("Hollywood-2", "UCF-sports")  # whose frames lie in <video>/images


@dataclass(frozen=True)
class FrameFolder:
    """One video of a dataset, as images, or as the video file that DHF1K gives out.

    Attributes:
        name: the video's name in the dataset.
        frames: its images, in order; of a video file the names that they would have, `001.AVI/0001.png`, as many as its
            header says.
        maps: where the map of each frame goes, in the same order.
        film: the video file; None where the frames are images.
    """

    name: str
    frames: tuple[Path, ...]
    maps: tuple[Path, ...]
    film: Path | None = None

    @property
    def source(self) -> Source:
        """What is played. A video file may hold some frames more or less than its header says."""
        if self.film is not None:
            return Source("video", str(self.film), self.name, of_dataset=True)
        return Source("images", str(self.frames[0].parent), self.name, self.frames, of_dataset=True)

    @property
    def folder(self) -> Path:
        """Where the maps go."""
        return self.maps[0].parent

    def map_name(self, number: int) -> str:
        """Returns what the map of a frame is called; frames count from 1."""
        return _COUNTED.format(number) if self.film else self.maps[number - 1].name

    def frame_path(self, number: int) -> Path:
        """Returns the frame's image, or the name that it would have; frames count from 1."""
        return self.film / _COUNTED.format(number) if self.film else self.frames[number - 1]


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
    films: bool = True,
) -> list[FrameFolder]:
    """Lists the videos of a dataset, and where their maps go.

    Args:
        dataset: one of `DATASETS`; `other` is any folder of folders of images.
        source: the dataset's folder: for DHF1K of `frames/<number>`, or of `video/<number>.AVI` where there are no
            frames; for Hollywood-2 and UCF-sports of `<video>/images`, here or in `testing`; else of `<video>`.
        target: folder for the predictions.
        weights: name of the checkpoint, which the published names hold.
        naming: `published` counts frames from 1; `groundtruth` keeps the frames' names, as a submission needs.
        start: least number of a video of DHF1K.
        end: greatest number of a video of DHF1K, itself included.
        films: whether video files of DHF1K count where there are no frames.

    Raises:
        UsageError: an option has no such value, or numbers were given for a dataset that has none.
        VideoError: there is no such folder, or no video in it.
    """
    check_dataset(dataset, naming=naming, start=start, end=end)
    root = testing_folder(dataset, source)
    root = root / "frames" if dataset == "DHF1K" and (root / "frames").is_dir() else root
    if not root.is_dir():
        raise VideoError(f"{root}: no such folder; name the one that holds the videos' folders")
    named = partial(_named, dataset, target, f"{Path(weights).name.partition('.')[0].replace(':', '-')}_predictions")
    folders = [path for path in _visible(root) if path.is_dir()]
    if dataset == "DHF1K":
        folders = [path for path in folders if is_wanted(path.name, start, end)]
    found = ((path, _images(dataset, path)) for path in folders)
    videos = [named(naming, path.name, frames) for path, frames in found if frames]
    if not videos and dataset == "DHF1K" and films:
        wanted = (film for film in _films(source) if is_wanted(film.stem, start, end))
        videos = [replace(named(naming, film.stem, _film_frames(film)), film=film) for film in wanted]
    if not videos:
        raise VideoError(f"{root}: holds no video of {dataset} that was asked for ({_PLACES[dataset]})")
    return videos


def testing_folder(dataset: str, root: Path) -> Path:
    """Returns where the videos of Hollywood-2 and UCF-sports lie: in `<dataset>/testing` or `testing`, if there is one.

    So do their ground truth and predictions of them: it is one rule for `--src`, `--gt` and `--pred`. Of other datasets
    it is `root` itself.
    """
    inside = (root / dataset / "testing", root / "testing") if dataset in IN_IMAGES else ()
    return next((folder for folder in inside if folder.is_dir()), root)


def _films(source: Path) -> list[Path]:
    """Lists DHF1K's videos as it gives them out: `video/001.AVI`, or with `video` itself for the source."""
    folder = source / "video" if (source / "video").is_dir() else source
    return [path for path in _visible(folder) if path.suffix.lower() in VIDEOS and path.is_file()]


def _film_frames(film: Path) -> tuple[Path, ...]:
    """Returns the names that a video's frames would have as images; one where it can't be read, as its run will say."""
    from salema.runtime.video.video_reader import VideoReader  # noqa: PLC0415 - PyAV, for those who have no frames

    try:
        with VideoReader(film) as reader:
            count = reader.frame_count or 1
    except VideoError:
        count = 1
    return tuple(film / _COUNTED.format(number) for number in range(1, count + 1))


def _visible(folder: Path) -> list[Path]:
    """Lists what is in a folder, in natural order; hidden entries, such as macOS's `._0001.png`, are left out."""
    return by_name(path for path in folder.iterdir() if not path.name.startswith("."))


def is_wanted(name: str, start: int | None, end: int | None) -> bool:
    """Whether a folder of DHF1K is a video, and its number in the range, `end` included."""
    return name.isdecimal() and (start or 0) <= int(name) and (end is None or int(name) <= end)


def _images(dataset: str, folder: Path) -> tuple[Path, ...]:
    """Lists a video's images; none where it holds none: shots without frames exist."""
    holds = folder / "images" if dataset in IN_IMAGES else folder
    if not holds.is_dir():
        return ()
    return tuple(path for path in _visible(holds) if path.suffix.lower() in IMAGES and not path.is_dir())


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
