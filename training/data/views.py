"""How a picture is changed for training, and the places where people looked with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

_SHAPES = 0.12  # how far a box may differ from the picture's shape, as a logarithm
_GAIN, _OFFSET, _TINT, _MOST_SATURATION = 0.25, 20.0, 0.06, 1.3
_GREYS = 0.5  # of the pictures, how many change their saturation


@dataclass(frozen=True)
class View:
    """A part of a picture, perhaps mirrored.

    Attributes:
        left, top, right, bottom: its edges, as fractions of the picture.
        mirrored: whether left and right are exchanged.
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0
    mirrored: bool = False

    def picture(self, image: NDArray[Any], size_hw: tuple[int, int]) -> NDArray[Any]:
        """Cuts the part out of an image, uint8 `(h, w, 3)` or float32 `(h, w)`, and resizes it to `size_hw`."""
        height, width = image.shape[:2]
        left, right = round(self.left * width), max(round(self.right * width), round(self.left * width) + 1)
        top, bottom = round(self.top * height), max(round(self.bottom * height), round(self.top * height) + 1)
        part = cv2.resize(image[top:bottom, left:right], size_hw[::-1], interpolation=cv2.INTER_AREA)
        return np.asarray(part[:, ::-1] if self.mirrored else part)

    def points(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns points `(n, 2)`, fractions of the picture, as fractions of the part; those outside are left out."""
        size = np.array((self.right - self.left, self.bottom - self.top), np.float32)
        moved = (points - np.array((self.left, self.top), np.float32)) / size
        moved = moved[((moved >= 0) & (moved < 1)).all(1)]
        if self.mirrored:
            moved[:, 0] = np.nextafter(np.float32(1), np.float32(0)) - moved[:, 0]
        return cast("NDArray[np.float32]", moved)

    @property
    def width(self) -> float:
        """Its width, as a fraction of the picture's."""
        return self.right - self.left

    def part_hw(self, picture_hw: tuple[int, int]) -> tuple[float, float]:
        """Returns the part's rows and columns in a picture of so many."""
        return (self.bottom - self.top) * picture_hw[0], self.width * picture_hw[1]


def random_view(rng: np.random.Generator, least: float, *, mirrored: bool | None = None) -> View:
    """Draws a part of at least `least` of the picture's sides, or so; `mirrored` None draws that too."""
    share, shape = rng.uniform(least, 1), np.exp(rng.uniform(-_SHAPES, _SHAPES))
    width, height = min(1, share * shape), min(1, share / shape)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    flip = bool(rng.random() < 0.5) if mirrored is None else mirrored  # noqa: PLR2004 - as often as not
    return View(left, top, left + width, top + height, flip)


def between(first: View, last: View, share: float) -> View:
    """Returns the view on the way from one to the other."""
    edges = ("left", "top", "right", "bottom")
    moved = {edge: (1 - share) * getattr(first, edge) + share * getattr(last, edge) for edge in edges}
    return View(**moved, mirrored=first.mirrored)


class Colours:
    """A change of light and colour, the same for all frames of a clip."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._gain = np.exp(rng.uniform(-_GAIN, _GAIN) + rng.normal(0, _TINT, 3)).astype(np.float32)
        self._offset = np.float32(rng.uniform(-_OFFSET, _OFFSET))
        self._saturation = np.float32(rng.uniform(0, _MOST_SATURATION) if rng.random() < _GREYS else 1)

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Changes a frame, uint8 BGR `(H, W, 3)`."""
        values = frame * self._gain + self._offset
        if self._saturation != 1:
            grey = values.mean(2, keepdims=True)
            values = grey + (values - grey) * self._saturation
        return cast("NDArray[np.uint8]", values.clip(0, 255).astype(np.uint8))
