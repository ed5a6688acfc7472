"""Finds a dataset's ground truth: where people looked.

A video is a folder with `maps` (density) and `fixation` (binary) in it; fixations may also be MATLAB files in
`fixation/maps`. The two may lie outside as well: `maps/<video>`, `fixation/<video>`. Numbers may have any padding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from os.path import splitext
from pathlib import Path
from typing import cast

from salema.benchmarks.maps.map_files import MAP_FILES, MATLAB
from salema.runtime.errors import MapError, UnreachableError, VideoError
from salema.runtime.files.many_requests import at_a_time, each
from salema.runtime.files.natural import by_name, natural_order
from salema.runtime.files.remote_path import is_remote
from salema.runtime.run.dataset_layouts import check_dataset, is_wanted, list_videos, testing_folder

_DENSITY = ("maps",)
_FIXATION = ("fixation", "fixations")


@dataclass(frozen=True)
class FrameTruth:
    """The ground truth of one frame.

    Attributes:
        name: the stem of its files, which is the frame's name.
        density: the map that CC, SIM and KL take, if there is one.
        fixation: the binary map that NSS and the AUCs take, if there is one.
    """

    name: str
    density: Path | None
    fixation: Path | None


@dataclass(frozen=True)
class VideoTruth:
    """The ground truth of one video.

    Attributes:
        name: the video's name in the ground truth.
        frames: the ground truth of its frames, in order.
        images: the stems of all its frames, in order, if the dataset's images are in the folder too; else empty.
    """

    name: str
    frames: tuple[FrameTruth, ...]
    images: tuple[str, ...] = ()


def video_key(dataset: str, name: str) -> str:
    """Returns a video's key: its name, or for DHF1K its number without padding."""
    return str(int(name)) if dataset == "DHF1K" and name.isdecimal() else name


def list_truth(dataset: str, root: Path, start: int | None = None, end: int | None = None) -> dict[str, VideoTruth]:
    """Lists the ground truth of a dataset, by `video_key`, in natural order.

    Args:
        dataset: one of `DATASETS`.
        root: the dataset's folder, or its `annotation`, or for Hollywood-2 and UCF-sports its `testing`.
        start: least number of a video of DHF1K.
        end: greatest number of a video of DHF1K, itself included.

    Raises:
        UsageError: there is no such dataset, or numbers were given for one that has none.
        MapError: there is no such folder, no ground truth in it, or two videos of one number.
        UnreachableError: it is at a URL that can't be reached.
    """
    check_dataset(dataset, start=start, end=end)
    inner = root / "annotation" if dataset == "DHF1K" else testing_folder(dataset, root)
    root = inner if inner.is_dir() else root
    if not root.is_dir():
        raise MapError(f"{root}: no such folder; name the one that holds the videos' ground truth")
    found: dict[str, VideoTruth] = {}
    images = _images(dataset, root, start, end)
    asked = [video for video in _videos(root) if dataset != "DHF1K" or is_wanted(video[0], start, end)]
    for name, frames in each(lambda video: (video[0], video[1]()), asked, at_a_time(root)):
        if not frames:
            continue
        key = video_key(dataset, name)
        if key in found:
            raise MapError(f"{root}: holds {found[key].name} and {name}, which are the same video; remove one")
        found[key] = VideoTruth(name, frames, images.get(key, ()))
    if not found:
        raise MapError(
            f"{root}: holds no ground truth of {dataset} that was asked for"
            " (images in <video>/maps/ and <video>/fixation/)"
        )
    return found


def subfolders(folder: Path) -> list[Path]:
    """Lists the folders in a folder, in natural order; hidden ones are left out."""
    found = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return by_name(found)


def _images(dataset: str, root: Path, start: int | None, end: int | None) -> dict[str, tuple[str, ...]]:
    """Lists the stems of the dataset's frames, by `video_key`, if they are beside the ground truth."""
    home = root
    if dataset == "DHF1K":
        home = next((place / "frames" for place in (root, root.parent) if (place / "frames").is_dir()), root)
    try:
        videos = list_videos(dataset, home, home, "", start=start, end=end, films=False)
    except UnreachableError:
        raise
    except VideoError:  # ground truth alone
        return {}
    return {video_key(dataset, video.name): tuple(path.stem for path in video.frames) for video in videos}


def _videos(root: Path) -> list[tuple[str, Callable[[], tuple[FrameTruth, ...]]]]:
    """Lists the videos by name, with what lists the frames of each."""
    density, fixation = _first(root, _DENSITY), _first(root, _FIXATION)
    outside = {path.name for folder in (density, fixation) if folder for path in subfolders(folder)} - {"maps"}
    if outside:
        names = natural_order(outside, str)
        return [(name, partial(_frames, density and density / name, fixation and fixation / name)) for name in names]
    return [(video.name, partial(_frames_inside, video)) for video in subfolders(root)]


def _frames_inside(video: Path) -> tuple[FrameTruth, ...]:
    return _frames(_first(video, _DENSITY), _first(video, _FIXATION))


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    if is_remote(folder):  # to ask for a folder that was not listed would list all that is in it
        inside = {path.name: path for path in subfolders(cast("Path", folder))}
        return next((inside[name] for name in names if name in inside), None)
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _frames(density: Path | None, fixation: Path | None) -> tuple[FrameTruth, ...]:
    densities = map_files(density)
    # If fixations are there both as images and as MATLAB files, the images are taken.
    fixations = map_files(fixation and fixation / "maps") | map_files(fixation)
    named = natural_order((fixations | densities).items(), lambda item: item[0])
    return tuple(FrameTruth(path.stem, densities.get(key), fixations.get(key)) for key, path in named)


def frame_key(stem: str) -> str:
    """Returns a frame's key: its name, or where that is a number, the number without padding."""
    return str(int(stem)) if stem.isdecimal() else stem


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # DirEntry.is_dir raises OSError for a link to itself; Path's says that it is no folder.
    return Path(entry).is_dir() if entry.is_symlink() else entry.is_dir()


def _files(folder: Path) -> dict[str, Path]:
    """Lists a folder's files by name, without hidden ones; none if there is no such folder."""
    if is_remote(folder):  # by one request, which tells the sizes too
        listed = cast("Iterable[Path]", folder.iterdir())
        return {path.name: path for path in listed if path.name[0] != "." and not path.is_dir()}
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:  # tells folders from files without a stat of each
        names = [entry.name for entry in entries if entry.name[0] != "." and not _is_folder(entry)]
    return {name: folder / name for name in names}


def map_files(folder: Path | None) -> dict[str, Path]:
    """Finds the maps in a folder, by `frame_key`; none without a folder. An image is preferred to a MATLAB file.

    Raises:
        MapError: two images are of the same frame.
    """
    files = _files(folder) if folder is not None else {}
    kinds = {name: splitext(name)[1].lower() for name in files}  # noqa: PTH122 - a Path takes five times as long
    found: dict[str, Path] = {}
    for name in sorted(files, key=lambda name: (kinds[name] == MATLAB, name)):
        if kinds[name] not in MAP_FILES:
            continue
        key = frame_key(name[: -len(kinds[name])])
        if key not in found:
            found[key] = files[name]
        elif kinds[name] != MATLAB:
            raise MapError(f"{files[name]}: is the map of the same frame as {found[key].name}; remove one")
    return found
