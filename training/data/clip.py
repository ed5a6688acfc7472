"""A clip to train on, and what gives clips."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from salema.training.data.views import View

if TYPE_CHECKING:
    from typing_extensions import Self

Map = NDArray[Any]


@dataclass(frozen=True)
class Shot:
    """What a frame of a clip shows: a part of the frame of a video; both are numbers, from 0."""

    video: int
    frame: int
    view: View


@dataclass(frozen=True)
class Clip:
    """Consecutive frames at the network's size, and where people looked at each.

    Attributes:
        frames: uint8 BGR `(T, H, W, 3)`.
        density: float32 `(T, H, W)`, 0 to 1, the greatest of each frame 1; 0 where nothing is known of the frame.
        fixations: float32 `(T, H, W)`, how many fixations fell on each pixel; 0 where none are known.
        weights: float32 `(T,)`: 1 where a frame counts in the loss, 0 where nothing is known of it or it is padding.
        shots: what each frame shows; empty where a clip shows nothing.
    """

    frames: NDArray[np.uint8]
    density: NDArray[np.float32]
    fixations: NDArray[np.float32]
    weights: NDArray[np.float32]
    shots: tuple[Shot, ...]

    @classmethod
    def nothing(cls, size_hw: tuple[int, int]) -> Clip:
        """Returns a clip of no frames, for networks of a size."""
        blank = np.zeros((0, *size_hw), np.float32)
        return cls(np.zeros((*blank.shape, 3), np.uint8), blank, blank, np.zeros(0, np.float32), ())


@dataclass(frozen=True)
class Seen:
    """One frame to validate on: uint8 BGR `(H, W, 3)`, with density and fixations `(h, w)`, None where not known."""

    frame: NDArray[np.uint8]
    density: Map | None
    fixated: NDArray[np.bool_] | None


class GazeSet(ABC):
    """Videos, or photographs, with the places where people looked.

    Attributes:
        name: what it is, for the model card.
        names: of its videos, in order.
        lengths: how many frames each has; of a photograph any number can be made.
        are_photographs: whether each video is one picture, of which clips are made.
        layout: one of `DATASETS`, by whose rule maps of it lie on disk.
    """

    name: str
    names: tuple[str, ...]
    lengths: tuple[int, ...]
    are_photographs: bool
    layout: str
    _by_video: tuple[str, ...] = ("names", "lengths")
    """The attributes that hold a value for each video."""

    def only(self, indices: Sequence[int]) -> Self:
        """Returns the set of some of its videos, which draws from none of the others."""
        chosen = copy(self)
        for name in self._by_video:
            values = getattr(self, name)
            setattr(chosen, name, tuple(values[index] for index in indices))
        return chosen

    @abstractmethod
    def maps_of(self, index: int) -> tuple[str, tuple[str, ...]]:
        """Returns what the folder of a video's maps is called, and the names of its frames, without their suffix."""

    @abstractmethod
    def clip(
        self, index: int, start: int, frames: int, size_hw: tuple[int, int], rng: np.random.Generator | None
    ) -> Clip:
        """Makes a clip.

        Args:
            index: which video.
            start: its first frame; frames count from 0.
            frames: how many; a video that ends before gives fewer, or none.
            size_hw: rows and columns of the network.
            rng: changes the picture as training wants it; None leaves it.

        Raises:
            SalemaError: a file can't be read.
        """

    @abstractmethod
    def seen(self, index: int, every: int = 1) -> Iterator[Seen]:
        """Yields the frames of a video, in order, to validate on; of each `every`th alone what is known.

        Raises:
            SalemaError: a file can't be read.
        """


def digest_of(gaze: GazeSet) -> str:
    """Returns a hash of the names and lengths of a set's videos: the same wherever it lies."""
    return hashlib.sha256(json.dumps([gaze.names, gaze.lengths]).encode()).hexdigest()[:16]
