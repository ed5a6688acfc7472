"""Some of the videos of a set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from salema.training.data.clip import Clip, GazeSet, Seen

if TYPE_CHECKING:
    import numpy as np


class Subset:
    """A `GazeSet` of some videos of another; `indices` are theirs in it."""

    def __init__(self, whole: GazeSet, indices: Sequence[int]) -> None:
        self._whole, self._indices = whole, tuple(indices)
        self.name, self.are_photographs = whole.name, whole.are_photographs
        self.names = tuple(whole.names[index] for index in indices)
        self.lengths = tuple(whole.lengths[index] for index in indices)

    def clip(
        self, index: int, start: int, frames: int, size_hw: tuple[int, int], rng: np.random.Generator | None
    ) -> Clip:
        """See `GazeSet`."""
        return self._whole.clip(self._indices[index], start, frames, size_hw, rng)

    def seen(self, index: int) -> Iterator[Seen]:
        """See `GazeSet`."""
        return self._whole.seen(self._indices[index])
