"""Videos of the datasets that `salema-eval` scores, with their ground truth, to train on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.maps.ground_truth import FrameTruth, VideoTruth, frame_key, list_truth, video_key
from salema.benchmarks.maps.map_files import read_fixations, read_map
from salema.runtime.errors import MapError
from salema.runtime.run.dataset_layouts import FrameFolder, list_videos
from salema.runtime.sources.image_reader import read_image
from salema.runtime.wording import counted, listed
from salema.training.data.clip import Clip, GazeSet, Seen, Shot
from salema.training.data.films import film_frames_from, with_all_frames
from salema.training.data.targets import BLUR, blurred, count_fixations, peaked
from salema.training.data.views import Colours, View, random_view

_LEAST = 0.7  # of a picture's sides: people look at the middle of films, which a part moves


class Videos(GazeSet):
    """Videos of a dataset with ground truth; a `GazeSet`. Frames without any count nothing.

    `truth` is the folder of the ground truth; None for `source`. `start` and `end` are numbers of DHF1K's videos, both
    included. `say` takes a sentence on what is left out. With `unlabelled` videos without ground truth are kept too, as
    a teacher wants them.

    Raises:
        UsageError: there is no such dataset, or numbers were given for one that has none.
        VideoError, MapError: there are no videos, or no ground truth of them, or none that fits the frames.
    """

    are_photographs = False
    _by_video = ("names", "lengths", "_videos", "_truth")

    def __init__(
        self,
        dataset: str,
        source: Path,
        truth: Path | None,
        start: int | None,
        end: int | None,
        say: Callable[[str], None],
        *,
        unlabelled: bool = False,
    ) -> None:
        self.name = self.layout = dataset
        listed_videos = list_videos(dataset, source, source, "", start=start, end=end)
        known = _list_truth(dataset, truth or source, start, end, may_lack=unlabelled and truth is None)
        keys = {video.name: video_key(dataset, video.name) for video in listed_videos}
        without = [name for name, key in keys.items() if key not in known]
        if len(without) == len(listed_videos) and not unlabelled:
            raise MapError(f"{truth or source}: holds no ground truth of the videos in {source}")
        if without:
            what = "learned from the teacher alone" if unlabelled else "left out"
            say(f"note: {counted(len(without), 'video')} without ground truth {what}: {listed(without)}")
        self._videos = [with_all_frames(video) for video in listed_videos if unlabelled or keys[video.name] in known]
        self.names = tuple(video.name for video in self._videos)
        self.lengths = tuple(len(video.frames) for video in self._videos)
        frames = [known[key].frames if (key := keys[name]) in known else () for name in self.names]
        self._truth = [_by_frame(video, own) for video, own in zip(self._videos, frames, strict=True)]

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
        if not pictures:  # the header of a film counts some frames that there are not
            return Clip.nothing(size_hw)
        weights = np.array([density.any() for density in densities], np.float32)
        return Clip(np.stack(pictures), np.stack(densities), np.stack(counts), weights, tuple(shots))

    def seen(self, index: int, every: int = 1) -> Iterator[Seen]:
        """See `GazeSet`."""
        for number, frame in self._frames(index, 0):
            truth = self._truth[index].get(number) if number % every == 0 else None
            yield Seen(
                frame,
                None if truth is None or truth.density is None else read_map(truth.density),
                None if truth is None or truth.fixation is None else _fixated(truth.fixation),
            )

    def _frames(self, index: int, start: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yields frames with their numbers from `start` on; both count from 0."""
        video = self._videos[index]
        if video.film is not None:
            yield from film_frames_from(video.film, start)
            return
        for number in range(start, len(video.frames)):
            yield number, read_image(video.frames[number])

    @staticmethod
    def _targets(
        truth: FrameTruth | None, view: View, size_hw: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns density and counted fixations at the network's size; zeros where nothing is known."""
        counts, density, picture_hw = np.zeros(size_hw, np.float32), np.zeros(size_hw, np.float32), size_hw
        if truth is not None and truth.fixation is not None:
            points, picture_hw = _places(truth.fixation)
            counts = count_fixations(view.points(points), size_hw)
        if truth is not None and truth.density is not None:
            density = peaked(view.picture(read_map(truth.density).astype(np.float32), size_hw))
        elif counts.any():
            density = blurred(counts, BLUR / view.width, view.part_hw(picture_hw))
        return density, counts


def _list_truth(
    dataset: str, root: Path, start: int | None, end: int | None, *, may_lack: bool
) -> dict[str, VideoTruth]:
    try:
        return list_truth(dataset, root, start, end)
    except MapError:
        if may_lack:
            return {}
        raise


def _by_frame(video: FrameFolder, frames: Sequence[FrameTruth]) -> dict[int, FrameTruth]:
    """Returns what is known of a video's frames, by their numbers from 0: of the same name, or else by their order.

    Raises:
        MapError: no name fits, and there are not as many of the one as of the other.
    """
    known = {frame_key(frame.name): frame for frame in frames}
    named = {number: known.get(frame_key(path.stem)) for number, path in enumerate(video.frames)}
    by_name = {number: frame for number, frame in named.items() if frame is not None}
    if not by_name and frames and len(frames) != len(video.frames):
        raise MapError(
            f"{video.name}: has {counted(len(video.frames), 'frame')} ({video.frames[0].name}, ...) and ground truth of"
            f" {len(frames)} ({frames[0].name}, ...), and no name fits; name the ground truth as the frames are"
        )
    return by_name or dict(enumerate(frames))


def _fixated(path: Path) -> NDArray[np.bool_]:
    """Reads a fixation map, bool `(H, W)`."""
    size_hw, indices = read_fixations(path)
    fixated = np.zeros(size_hw, bool)
    fixated.ravel()[indices] = True
    return fixated


def _places(path: Path) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Reads the centres `(n, 2)` of the fixated pixels, as fractions of width and height, and the map's size."""
    size_hw, indices = read_fixations(path)
    rows, columns = np.divmod(indices, size_hw[1])
    return ((np.stack([columns, rows], 1) + 0.5) / size_hw[::-1]).astype(np.float32), size_hw
