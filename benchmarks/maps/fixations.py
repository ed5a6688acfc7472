"""The fixations of a dataset, read once, and the other frames' fixations that are shuffled AUC's negatives."""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator, default_rng  # imported here, or each worker process would load NumPy's generators

from salema.benchmarks.maps.map_files import read_fixations
from salema.benchmarks.metrics.resizing import resize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salema.benchmarks.metrics.protocols import Protocol

_KEPT_VIDEOS = 16  # as many as workers use at a time
_KEPT_FRAMES = 4096  # some hundred indices each


@dataclass(frozen=True)
class Places:
    """The fixated pixels of one frame.

    Attributes:
        size_hw: the fixation map's.
        indices: int32 `(n,)` into the flat map.
    """

    size_hw: tuple[int, int]
    indices: NDArray[np.int32]

    def to_map(self) -> NDArray[np.bool_]:
        """Returns them as bool `(H, W)`."""
        fixated = np.zeros(self.size_hw, bool)
        fixated.ravel()[self.indices] = True
        return fixated

    def at(self, size_hw: tuple[int, int]) -> NDArray[np.intp]:
        """Returns the indices `(n,)` of the same places in a map of another size."""
        if size_hw == self.size_hw:
            return self.indices.astype(np.intp)
        rows, columns = np.divmod(self.indices.astype(np.intp), self.size_hw[1])
        rows = (2 * rows + 1) * size_hw[0] // (2 * self.size_hw[0])
        indices: NDArray[np.intp] = rows * size_hw[1] + (2 * columns + 1) * size_hw[1] // (2 * self.size_hw[1])
        return indices


def read_places(path: Path | None) -> Places | None:
    """Reads a fixation map; None where there is none."""
    if path is None:
        return None
    size_hw, indices = read_fixations(path)
    return Places(size_hw, indices.astype(np.int32))


class OtherFixations:
    """Chooses the frames whose fixations are the negatives of shuffled AUC.

    Args:
        places: the fixations of all frames that take part, by video, or the files to read them from when they are
            drawn; None where they are not known.
        protocol: says how many frames are drawn, and from which videos.
        seed: of the draws, which otherwise depend only on the videos and their names.
        first: videos that are drawn from before the others, where draws are for a whole video.
        read: reads the fixations of a frame of a video that are not read yet; None: `read_places`.
    """

    def __init__(
        self,
        places: Mapping[str, Sequence[Places | Path | None]],
        protocol: Protocol,
        seed: int,
        first: Collection[str] = (),
        read: Callable[[str, int], Places | None] | None = None,
    ) -> None:
        self._given = places, protocol, seed, first, read
        self._places, self._protocol, self._seed, self._first = places, protocol, seed, first
        self._read_one = read
        self._known = {
            video: [index for index, found in enumerate(frames) if found is not None]
            for video, frames in places.items()
        }
        self._all_frames = [(video, index) for video, indices in self._known.items() for index in indices]
        self._of_video = functools.lru_cache(_KEPT_VIDEOS)(self._for_video_or_none)
        self._of_all = functools.lru_cache(_KEPT_VIDEOS)(self._for_all)
        self._read_once = functools.lru_cache(_KEPT_FRAMES)(self._read_drawn)

    def __reduce__(self) -> tuple[Any, ...]:  # its caches can't be pickled
        return OtherFixations, self._given

    def at(self, video: str, index: int, size_hw: tuple[int, int]) -> NDArray[Any] | None:
        """Returns how often each place was fixated in other frames, int32 `(H, W)`; None if that is not known.

        Where the protocol draws frames, places of several of them count once, as bool; where it draws them for a whole
        video, it is the average of their maps of 0 and 255, uint8 as in the published code.
        """
        if self._protocol.per_video:
            return self._of_video(video, size_hw)
        counts = self._for_frame(video, index, size_hw)
        return counts if counts.any() else None

    def _for_all(self, size_hw: tuple[int, int]) -> NDArray[np.int32]:
        return _count(self._read(self._all_frames), size_hw)

    def _for_video_or_none(self, video: str, size_hw: tuple[int, int]) -> NDArray[Any] | None:
        counts = self._for_video(video, size_hw)
        return counts if counts.any() else None

    def _for_video(self, video: str, size_hw: tuple[int, int]) -> NDArray[Any]:
        if self._protocol.other_frames is None:
            return self._of_all(size_hw) - _count(self._read((video, index) for index in self._known[video]), size_hw)
        rng = seeded(self._seed, "others", video)
        others = [name for name, indices in self._known.items() if name != video and indices]
        mixed = [others[number] for number in rng.permutation(len(others))]
        chosen = sorted(mixed, key=lambda name: name not in self._first)[: self._protocol.other_frames]
        drawn = ([(name, int(index)) for index in rng.permutation(self._known[name])] for name in chosen)
        # The first frame of each video, then the second of each, and so on.
        in_turn = (frame for frames in zip_longest(*drawn) for frame in frames if frame is not None)
        frames = self._read(islice(in_turn, self._protocol.other_frames))
        return _average(frames, size_hw, by_area=self._protocol.resize == "area")

    def _for_frame(self, video: str, index: int, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
        count, rng = self._protocol.other_frames or 0, seeded(self._seed, "others", video, index)
        drawn = rng.choice(len(self._all_frames), min(count + 1, len(self._all_frames)), replace=False)
        others = [self._all_frames[number] for number in drawn if self._all_frames[number] != (video, index)]
        return _union(self._read(others[:count]), size_hw)

    def fewest(self, videos: Iterable[str]) -> int | None:
        """Returns the least number of frames that any video can draw from; None if it is enough."""
        wanted, total = self._protocol.other_frames or 0, len(self._all_frames)
        own = (len(self._known[video]) if self._protocol.per_video else 1 for video in videos)
        found = max(total - max(own, default=0), 0)
        return found if found < wanted else None

    def _read(self, frames: Iterable[tuple[str, int]]) -> Iterator[Places | None]:
        for video, index in frames:
            found = self._places[video][index]
            yield found if found is None or isinstance(found, Places) else self._read_once(video, index)

    def _read_drawn(self, video: str, index: int) -> Places | None:
        found = self._places[video][index]
        if self._read_one is not None:
            return self._read_one(video, index)
        return found if isinstance(found, Places) else read_places(found)


def seeded(seed: int, *names: object) -> Generator:
    """Returns a generator for these names; other draws and their order don't change it."""
    return default_rng([seed, zlib.crc32(os.fsencode("/".join(map(str, names))))])


def _count(frames: Iterable[Places | None], size_hw: tuple[int, int]) -> NDArray[np.int32]:
    indices: list[NDArray[Any]] = [frame.at(size_hw) for frame in frames if frame is not None]
    total = np.bincount(np.concatenate([np.empty(0, np.intp), *indices]), minlength=size_hw[0] * size_hw[1])
    return total.reshape(size_hw).astype(np.int32)


def _union(frames: Iterable[Places | None], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    union = np.zeros(size_hw, bool)
    for frame in frames:
        if frame is not None:
            union.ravel()[frame.at(size_hw)] = True
    return union


def _average(frames: Iterable[Places | None], size_hw: tuple[int, int], *, by_area: bool) -> NDArray[np.uint8]:
    """Averages maps of 0 and 255, rounded down."""
    found = [frame for frame in frames if frame is not None]
    if by_area:  # a place grows or fades with the size of its frame
        total = sum((_resized_by_area(frame, size_hw) for frame in found), np.zeros(size_hw, np.float32))
    else:
        total = _count(found, size_hw).astype(np.float32) * np.float32(255)
    averaged: NDArray[np.uint8] = (total / max(len(found), 1)).astype(np.uint8)
    return averaged


def _resized_by_area(frame: Places, size_hw: tuple[int, int]) -> NDArray[np.float32]:
    levels = frame.to_map().astype(np.float32) * np.float32(255)
    resized: NDArray[np.float32] = resize(levels, size_hw, "area")
    return resized
