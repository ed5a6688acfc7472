"""Which map belongs to which frame of the ground truth: maps on disk, or those of a model as it runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from salema.benchmarks.maps.ground_truth import VideoTruth, frame_key, map_files, subfolders, video_key
from salema.benchmarks.maps.map_files import read_map
from salema.runtime.errors import MapError, ModelError, UsageError, VideoError
from salema.runtime.files.many_requests import at_a_time, each
from salema.runtime.output.provenance import makers, title_of
from salema.runtime.run.dataset_layouts import IN_IMAGES, NAMINGS, FrameFolder, is_wanted, list_videos, testing_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salema.runtime.stream import SaliencyStream

    Map = NDArray[Any]


@dataclass(frozen=True)
class Matched:
    """One video that has maps and ground truth.

    Attributes:
        files: the map's file, or the image that the model takes, by the index of the frame in the ground truth.
        missing: frames of the ground truth that have none.
        extra: files that belong to no frame of the ground truth.
    """

    files: dict[int, Path]
    missing: tuple[str, ...]
    extra: tuple[str, ...]


class MapSource(Protocol):
    """A source of maps to score: files, or a model.

    Attributes:
        label: its name in tables.
        videos: its maps of each video, by `video_key`.
        without_truth: its videos that have no ground truth.
        made_by: what made its maps, a sentence each; empty if that is not known.
    """

    label: str
    videos: dict[str, Matched]
    without_truth: tuple[str, ...]
    made_by: tuple[str, ...]

    def maps(self, key: str) -> Iterator[tuple[int, Callable[[], Map]]]:
        """Yields, for one video, indices of frames in the ground truth, and how to get the map `(H, W)` of each."""


class PredictedMaps:
    """Maps on disk, as `salema-run --dataset` or the published code wrote them, or named as the ground truth is.

    Args:
        dataset: one of `DATASETS`.
        root: folder of the predictions.
        truth: the ground truth, by `video_key`.
        start: least number of a video of DHF1K.
        end: greatest number of a video of DHF1K, itself included.
        weights: which `<weights>_predictions`, where there are several; None if there is one.
        naming: `published` or `groundtruth`; None takes the one that more names fit.

    Raises:
        MapError: there are no predictions, or it is unclear which are meant, or two folders are the same video.
        UnreachableError: they are at a URL that can't be reached.
        UsageError: there is no such naming.
    """

    def __init__(
        self,
        dataset: str,
        root: Path,
        truth: Mapping[str, VideoTruth],
        start: int | None = None,
        end: int | None = None,
        *,
        weights: str | None = None,
        naming: str | None = None,
    ) -> None:
        if naming not in {None, *NAMINGS}:
            raise UsageError(f"--naming {naming}: not one of {', '.join(NAMINGS)}")
        if not root.is_dir():
            raise MapError(f"{root}: no such folder; name the one that holds the predictions")
        root = testing_folder(dataset, root)
        # In datasets of images, <weights>_predictions are in each video's folder.
        place = root if dataset in IN_IMAGES else find_predictions(root, weights)
        label = weights or place.resolve().name
        self.videos: dict[str, Matched] = {}
        without, folders = [], []
        for key, name, files in _predictions(dataset, place, weights, start, end):
            inner = next(iter(files.values())).parent
            if inner.name.endswith("_predictions"):
                label = inner.name
            if key in truth:
                folders.append(inner)
                self.videos[key] = _match(dataset, truth[key], name, files, naming)
            else:
                without.append(name)
        self.label, self.without_truth = label.removesuffix("_predictions"), tuple(without)
        self.made_by = makers(folders)
        if not any(video.files for video in self.videos.values()):
            what = "no maps in <video>/"
            if self.videos:
                what = "no name of a map fits a frame of the ground truth"
            elif without:
                what = f"of the {len(without)} videos here none has ground truth"
            raise MapError(f"{root}: holds no predictions of {dataset} that can be scored ({what})")

    def maps(self, key: str) -> Iterator[tuple[int, Callable[[], Map]]]:
        """See `MapSource`."""
        return ((index, partial(read_map, path)) for index, path in self.videos[key].files.items())


def find_predictions(folder: Path, weights: str | None) -> Path:
    """Returns the `<weights>_predictions` in a folder, or the folder itself where there is none.

    Raises:
        MapError: there are several, or none of the weights asked for.
    """
    found = [path for path in subfolders(folder) if path.name.endswith("_predictions")]
    if weights is not None:
        wanted = f"{weights.removesuffix('_predictions')}_predictions"
        if folder.name == wanted:
            return folder
        if wanted not in {path.name for path in found}:
            others = ", ".join(path.name for path in found)
            instead = f"it holds {others}" if others else "if the maps lie right here, leave --weights out"
            raise MapError(f"{folder}: holds no {wanted}; {instead}")
        return folder / wanted
    if len(found) > 1:
        raise MapError(f"{folder}: holds {', '.join(path.name for path in found)}; choose one with --weights")
    return found[0] if found else folder


def _predictions(
    dataset: str, place: Path, weights: str | None, start: int | None, end: int | None
) -> Iterator[tuple[str, str, dict[str, Path]]]:
    """Yields each video's key, its folder's name and its maps; videos without maps, of these weights, are left out.

    Raises:
        MapError: no video has maps, and one has none of these weights.
    """
    names: dict[str, str] = {}
    lacking: Path | None = None
    folders = [path for path in subfolders(place) if dataset != "DHF1K" or is_wanted(path.name, start, end)]
    for folder, files in each(partial(_maps_in, dataset, weights), folders, at_a_time(place)):
        if files is None:
            lacking = lacking or folder
        elif files:
            key = video_key(dataset, folder.name)
            _claim(names, key, folder.name, place)
            yield key, folder.name, files
    if lacking and not names and weights is not None:
        find_predictions(lacking, weights)  # raises, and says what the folder holds


def _maps_in(dataset: str, weights: str | None, folder: Path) -> tuple[Path, dict[str, Path] | None]:
    """Returns a video's folder and its maps; None for those that are of other weights."""
    if dataset not in IN_IMAGES:
        return folder, map_files(folder)
    if weights is not None and not (folder / f"{weights.removesuffix('_predictions')}_predictions").is_dir():
        return folder, None
    return folder, map_files(find_predictions(folder, weights))


def _claim(names: dict[str, str], key: str, name: str, root: Path) -> None:
    """Notes a video's folder by its key; refuses a second one."""
    if key in names:
        raise MapError(f"{root}: holds {names[key]} and {name}, which are the same video; remove one")
    names[key] = name


def _match(dataset: str, truth: VideoTruth, name: str, files: Mapping[str, Path], naming: str | None) -> Matched:
    by_name = {frame_key(frame.name): index for index, frame in enumerate(truth.frames)}
    counted = [by_name.get(frame_key(stem)) for stem in truth.images] or list(range(len(truth.frames)))
    prefix = re.escape(name[:-1]) if dataset in IN_IMAGES else ""
    fits = ((re.fullmatch(prefix + r"(\d+)", path.stem), path) for path in files.values())
    counts = ((int(fit[1]) - 1, path) for fit, path in fits if fit and 1 <= int(fit[1]) <= len(counted))
    found = {
        "groundtruth": {by_name[key]: path for key, path in files.items() if key in by_name},
        "published": {index: path for count, path in counts if (index := counted[count]) is not None},
    }
    if naming is None:
        naming = max(found, key=lambda way: len(found[way]))
        first, second = found.values()
        if len(first) == len(second) and first != second:
            raise MapError(
                f"{next(iter(files.values())).parent}: these names fit the frames' own and a count from 1 equally well;"
                " say which with --naming groundtruth or --naming published"
            )
    if naming == "published" and not truth.images and len(files) != len(truth.frames):
        raise MapError(
            f"{next(iter(files.values())).parent}: holds {len(files)} maps counted from 1, and the ground truth"
            f" {len(truth.frames)} frames; put the dataset's frames beside the ground truth to tell which is which"
        )
    return _matched(truth, dict(sorted(found[naming].items())), files.values())


def _matched(truth: VideoTruth, files: dict[int, Path], given: Any) -> Matched:
    taken = set(files.values())
    missing = tuple(frame.name for index, frame in enumerate(truth.frames) if index not in files)
    return Matched(files, missing, tuple(path.name for path in given if path not in taken))


class ModelMaps:
    """The maps that an exported model gives for a dataset's frames: those `salema-run` writes. Nothing is written.

    Args:
        dataset: one of `DATASETS`.
        source: the dataset's folder.
        truth: the ground truth, by `video_key`.
        stream: the model; the caller closes it.
        label: what to call it.
        start: least number of a video of DHF1K.
        end: greatest number of a video of DHF1K, itself included.

    Raises:
        VideoError: there is no video to run.
        MapError: none has ground truth, no frame has, or two are the same video.
    """

    def __init__(
        self,
        dataset: str,
        source: Path,
        truth: Mapping[str, VideoTruth],
        stream: SaliencyStream,
        label: str,
        start: int | None = None,
        end: int | None = None,
    ) -> None:
        self.label, self._stream = label, stream
        self.videos: dict[str, Matched] = {}
        self._videos: dict[str, FrameFolder] = {}
        names: dict[str, str] = {}
        without = []
        for video in list_videos(dataset, source, source, "", start=start, end=end):
            key = video_key(dataset, video.name)
            _claim(names, key, video.name, source)
            if key not in truth:
                without.append(video.name)
                continue
            by_name = {frame_key(path.stem): path for path in video.frames}
            pairs = enumerate(by_name.get(frame_key(frame.name)) for frame in truth[key].frames)
            self.videos[key] = _matched(truth[key], {index: path for index, path in pairs if path}, video.frames)
            self._videos[key] = video
        self.without_truth = tuple(without)
        if not self.videos:
            raise MapError(f"{source}: none of its {len(without)} videos has ground truth; name it with --gt DIR")
        if not any(video.files for video in self.videos.values()):
            raise MapError(
                f"{source}: holds no frames of {dataset} that can be scored"
                " (no name of a frame fits a frame of the ground truth)"
            )
        self.made_by: tuple[str, ...] = (f"the maps are made, as they are scored, by {title_of(stream)}",)

    def maps(self, key: str) -> Iterator[tuple[int, Callable[[], Map]]]:
        """See `MapSource`; frames without ground truth are run too, as they change the state.

        Raises:
            VideoError: a frame can't be read.
            ModelError: the model gave NaN or infinity.
        """
        from salema.runtime.postprocess import to_grey  # noqa: PLC0415 - most runs score files
        from salema.runtime.sources.playback import Playback  # noqa: PLC0415 - with PyAV

        index_of = {path: index for index, path in self.videos[key].files.items()}
        self._stream.reset()
        video = self._videos[key]
        with Playback(video.source) as playback:
            for number, frame in enumerate(playback, 1):
                path = video.frame_path(number)
                saliency = self._stream.step(frame.image_bgr)
                if not np.isfinite(saliency).all():
                    raise ModelError(f"{path}: the model gave NaN or infinity for this frame")
                if path in index_of:
                    yield index_of.pop(path), partial(to_grey, saliency)
        if index_of:
            first = min(index_of, key=lambda path: index_of[path])
            raise VideoError(f"{first}: {first.parent.name} ends before this frame, which has ground truth")
