"""Which clips a run trains on, step by step. All follows from the seed, so that a run can go on from any step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from salema.training.data.clip import GazeSet
from salema.training.recipes import Recipe

_MOST = 2**63


@dataclass(frozen=True)
class Item:
    """One clip: a video's index, its first frame, how many (0 for none, where a video has ended), and its seed."""

    video: int
    start: int
    frames: int
    seed: int


@dataclass(frozen=True)
class Step:
    """The clips of one step of training, of all processes; `goes_on` where they continue those of the step before."""

    items: tuple[Item, ...]
    goes_on: bool = False

    @property
    def frames(self) -> int:
        """How many frames the longest has."""
        return max(item.frames for item in self.items)


def plan_epoch(gaze: GazeSet, recipe: Recipe, seed: int, epoch: int) -> list[Step]:
    """Returns the steps of an epoch, which counts from 1: the same ones for the same arguments.

    In the order `clips`, each video gives one clip, from a random start, and the last step is filled up with clips of
    other videos. In the order `videos` each is read from start to end, `batch` of them side by side.
    """
    if recipe.order == "videos" and not gaze.are_photographs:
        return list(_whole_videos(gaze, recipe, seed, epoch))
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(gaze.names)) if recipe.order == "clips" else np.arange(len(gaze.names))
    count = -(-len(order) // recipe.batch)
    filled = np.resize(order, count * recipe.batch)
    items = [_random_clip(gaze, int(video), recipe.clip_frames, rng) for video in filled]
    return [Step(tuple(items[first : first + recipe.batch])) for first in range(0, len(items), recipe.batch)]


def _random_clip(gaze: GazeSet, video: int, frames: int, rng: np.random.Generator) -> Item:
    length = frames if gaze.are_photographs else gaze.lengths[video]
    start = int(rng.integers(max(length - frames, 0) + 1))
    return Item(video, start, min(frames, length), int(rng.integers(_MOST)))


def _whole_videos(gaze: GazeSet, recipe: Recipe, seed: int, epoch: int) -> Iterator[Step]:
    rng = np.random.default_rng([seed, epoch])
    videos = iter(range(len(gaze.names)))
    while group := list(islice(videos, recipe.batch)):
        for start in range(0, max(gaze.lengths[video] for video in group), recipe.clip_frames):
            items = [
                Item(
                    video,
                    start,
                    min(max(gaze.lengths[video] - start, 0), recipe.clip_frames),
                    int(rng.integers(_MOST)),
                )
                for video in group
            ]
            nothing = [Item(group[0], 0, 0, 0)] * (recipe.batch - len(group))
            yield Step((*items, *nothing), goes_on=start > 0)
