"""Videos of the datasets that `salema-eval` scores, with their ground truth, to train on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from itertools import islice
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.maps.ground_truth import FrameTruth, frame_key, list_truth, video_key
from salema.benchmarks.maps.map_files import read_fixations, read_map
from salema.runtime.errors import MapError, VideoError
from salema.runtime.files.image_file import decode_file
from salema.runtime.run.dataset_layouts import FrameFolder, list_videos
from salema.runtime.video.video_reader import VideoReader
from salema.runtime.wording import counted, listed
from salema.training.data.clip import Clip, Seen, Shot
from salema.training.data.targets import BLUR, blurred, count_fixations, peaked
from salema.training.data.views import Colours, View, random_view

_LEAST = 0.7  # of a picture's sides: people look at the middle of films, which a part moves


class Videos:
    """Videos of a dataset with ground truth; a `GazeSet`. Frames without any count nothing.

    Args:
        dataset: one of `DATASETS`.
        source: the dataset's folder, frames and ground truth in it.
        truth: the folder of the ground truth; None for the same.
        start: least number of a video of DHF1K.
        end: greatest number of a video of DHF1K, itself included.
        say: takes a sentence on what is left out.

    Raises:
        UsageError: there is no such dataset, or numbers were given for one that has none.
        VideoError, MapError: there are no videos, or no ground truth of them.
    """

    are_photographs = False

    def __init__(
        self,
        dataset: str,
        source: Path,
        truth: Path | None,
        start: int | None,
        end: int | None,
        say: Callable[[str], None],
    ) -> None:
        self.name = self.layout = dataset
        known = list_truth(dataset, truth or source, start, end)
        listed_videos = list_videos(dataset, source, source, "", start=start, end=end)
        self._videos = [video for video in listed_videos if video_key(dataset, video.name) in known]
        if not self._videos:
            raise MapError(f"{truth or source}: holds no ground truth of the videos in {source}")
        without = [video.name for video in listed_videos if video_key(dataset, video.name) not in known]
        if without:
            say(f"note: {counted(len(without), 'video')} without ground truth left out: {listed(without)}")
        self.names = tuple(video.name for video in self._videos)
        self.lengths = tuple(len(video.frames) for video in self._videos)
        self._truth = [_by_frame(video, known[video_key(dataset, video.name)].frames) for video in self._videos]

    def only(self, indices: Sequence[int]) -> Videos:
        """See `GazeSet`."""
        chosen = copy(self)
        chosen.names = tuple(self.names[index] for index in indices)
        chosen.lengths = tuple(self.lengths[index] for index in indices)
        chosen._videos = [self._videos[index] for index in indices]  # noqa: SLF001 - a copy of our own
        chosen._truth = [self._truth[index] for index in indices]  # noqa: SLF001 - a copy of our own
        return chosen

    def maps_of(self, index: int) -> tuple[str, tuple[str, ...]]:
        """See `GazeSet`."""
        return self.names[index], tuple(path.stem for path in self._videos[index].frames)

    def clip(
        self, index: int, start: int, frames: int, size_hw: tuple[int, int], rng: np.random.Generator | None
    ) -> Clip:
        """See `GazeSet`."""
        view = View() if rng is None else random_view(rng, _LEAST)
        colours = None if rng is None else Colours(rng)
        pictures, densities, counts, shots = [], [], [], []
        for number, frame in islice(self._frames(index, start), frames):
            picture = view.picture(frame, size_hw)
            pictures.append(colours(picture) if colours else picture)
            density, count = self._targets(self._truth[index].get(number), view, size_hw)
            densities.append(density)
            counts.append(count)
            shots.append(Shot(index, number, view))
        if not pictures:
            raise VideoError(f"{self.names[index]}: ends before frame {start + 1}; its header says more")
        weights = np.array([density.any() for density in densities], np.float32)
        return Clip(np.stack(pictures), np.stack(densities), np.stack(counts), weights, tuple(shots))

    def seen(self, index: int) -> Iterator[Seen]:
        """See `GazeSet`."""
        for number, frame in self._frames(index, 0):
            truth = self._truth[index].get(number)
            yield Seen(
                frame,
                None if truth is None or truth.density is None else read_map(truth.density),
                None if truth is None or truth.fixation is None else _fixated(truth.fixation),
            )

    def _frames(self, index: int, start: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yields frames with their numbers from `start` on; both count from 0."""
        video = self._videos[index]
        if video.film is not None:
            yield from _film_frames(video.film, start)
            return
        for number in range(start, len(video.frames)):
            image = decode_file(video.frames[number], cv2.IMREAD_COLOR, VideoError)
            yield number, cast("NDArray[np.uint8]", image)

    @staticmethod
    def _targets(
        truth: FrameTruth | None, view: View, size_hw: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns density and counted fixations at the network's size; zeros where nothing is known."""
        counts, density = np.zeros(size_hw, np.float32), np.zeros(size_hw, np.float32)
        if truth is not None and truth.fixation is not None:
            counts = count_fixations(view.points(_places(truth.fixation)), size_hw)
        if truth is not None and truth.density is not None:
            density = peaked(view.picture(read_map(truth.density).astype(np.float32), size_hw))
        elif counts.any():
            density = blurred(counts, BLUR / view.width)
        return density, counts


def _by_frame(video: FrameFolder, frames: Sequence[FrameTruth]) -> dict[int, FrameTruth]:
    """Returns what is known of a video's frames, by their numbers from 0: of the same name, or else by their order."""
    known = {frame_key(frame.name): frame for frame in frames}
    named = {number: known.get(frame_key(path.stem)) for number, path in enumerate(video.frames)}
    by_name = {number: frame for number, frame in named.items() if frame is not None}
    return by_name or dict(enumerate(frames))


def _film_frames(film: Path, start: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    with VideoReader(film) as first:
        rate, base = first.rate, next(iter(first)).pts  # AVI counts from 1
    with VideoReader(film, start_s=float(start / rate)) as reader:  # decodes from the key frame before it, or all
        for frame in reader:
            number = round((frame.pts - base) * reader.time_base * rate)
            if number >= start:
                yield number, frame.image_bgr


def _fixated(path: Path) -> NDArray[np.bool_]:
    """Reads a fixation map, bool `(H, W)`."""
    size_hw, indices = read_fixations(path)
    fixated = np.zeros(size_hw, bool)
    fixated.ravel()[indices] = True
    return fixated


def _places(path: Path) -> NDArray[np.float32]:
    """Reads the centres of the pixels that are fixated `(n, 2)`, as fractions of width and height."""
    size_hw, indices = read_fixations(path)
    rows, columns = np.divmod(indices, size_hw[1])
    return ((np.stack([columns, rows], 1) + 0.5) / size_hw[::-1]).astype(np.float32)
