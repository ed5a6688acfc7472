"""From the raw sigmoid map to 8-bit maps and pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.runtime.errors import UsageError

View = Literal["overlay", "map", "side-by-side"]
VIEWS: tuple[View, ...] = get_args(View)
Normalise = Literal["frame", "running", "none"]
NORMALISATIONS: tuple[Normalise, ...] = get_args(Normalise)
COLORMAPS: dict[str, int] = {
    name.removeprefix("COLORMAP_").lower(): value
    for name, value in vars(cv2).items()
    if name.startswith("COLORMAP_") and isinstance(value, int)
}
_RELEASE_S = 1.0


@dataclass(frozen=True)
class Look:
    """How maps are drawn.

    Attributes:
        view: what the picture shows; None for no picture.
        normalise: which values become black and white: `frame`, the map's own least and greatest value, as published;
            `running`, the least and greatest value of about the last second, which flickers less; `none`, 0 and 1.
        colormap: one of `COLORMAPS`, for the overlay.
        opacity: opacity of the overlay's colours, 0 to 1.

    Raises:
        UsageError: an option has another value.
    """

    view: View | None = "overlay"
    normalise: Normalise = "frame"
    colormap: str = "jet"
    opacity: float = 0.5

    def __post_init__(self) -> None:
        for option, value, known in (
            ("view", self.view, (*VIEWS, None)),
            ("normalise", self.normalise, NORMALISATIONS),
            ("colormap", self.colormap, tuple(sorted(COLORMAPS))),
        ):
            if value not in known:
                raise UsageError(f"--{option} {value}: not one of {', '.join(filter(None, known))}")
        if not 0 <= self.opacity <= 1:
            raise UsageError(f"--opacity {self.opacity:g}: give a number from 0 to 1")


PUBLISHED = Look()


@dataclass(frozen=True)
class Pictures:
    """The maps and the picture of one source frame.

    Attributes:
        grey: uint8 `[H, W]`, the map in levels; with the published look it is what the published code saves.
        image_bgr: uint8 `[h, w, 3]`, the picture, or None if no picture was wanted.
        limits: the values of the raw map that became 0 and 255.
        range: the raw map's least and greatest value; both are NaN if the map holds a NaN.
        saliency: float32 `[H, W]`, the raw map, or None if it was not wanted.
    """

    grey: NDArray[np.uint8]
    image_bgr: NDArray[np.uint8] | None
    limits: tuple[np.float32, np.float32]
    range: tuple[float, float]
    saliency: NDArray[np.float32] | None

    @property
    def is_finite(self) -> bool:
        """Whether the raw map holds neither NaN nor infinity."""
        return bool(np.isfinite(self.range).all())


@dataclass(frozen=True, eq=False)
class ToDraw:
    """A source frame, and what is wanted of it.

    Attributes:
        image_bgr: uint8 `[h, w, 3]` of any size.
        look: how to draw; its view None for no picture. Running limits are not possible here.
        raw: whether the raw map is wanted too.
    """

    image_bgr: NDArray[np.uint8]
    look: Look
    raw: bool = False


class Normaliser:
    """Chooses the values of a map that become black and white."""

    def __init__(self, normalise: Normalise) -> None:
        self._normalise = normalise
        self._low = self._high = math.nan

    def limits(
        self, saliency: NDArray[np.float32], elapsed_s: float = 0, *, starts_anew: bool = False
    ) -> tuple[np.float32, np.float32]:
        """Takes the next map `(H, W)`, which comes `elapsed_s` after the map before it; returns its limits.

        Running limits follow a wider range at once, so that no value is cut off. They approach a narrower range by 63 %
        in a second.
        """
        if self._normalise == "none":
            return np.float32(0), np.float32(1)
        low, high = saliency.min(), saliency.max()
        if self._normalise == "frame":
            return low, high
        if starts_anew or math.isnan(self._low):
            self._low, self._high = float(low), float(high)
        share = 1 - math.exp(-elapsed_s / _RELEASE_S)
        self._low = min(float(low), self._low + share * (float(low) - self._low))
        self._high = max(float(high), self._high + share * (float(high) - self._high))
        return np.float32(self._low), np.float32(self._high)


def to_levels(
    saliency: NDArray[np.float32], limits: tuple[np.float32, np.float32], bits: int = 8
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Stretches a map `(H, W)` from its limits to whole levels of 8 or 16 bits, and rounds it.

    Halves are rounded up, in float32, as the published code does: `save_image` adds 0.5 and cuts off (torchvision 0.2.2
    and later). Rounding halves to the nearest even level, or in float64, changes about one pixel in 100 000.

    Where the two limits are the same, all levels are 0 (the published code divides by zero there).
    """
    low, high = limits
    kind, most = (np.uint8, 255) if bits == 8 else (np.uint16, 65535)  # noqa: PLR2004
    if not high > low:
        return np.zeros(saliency.shape, kind)
    stretched = (saliency - low) / (high - low) * np.float32(most)
    return cast("NDArray[np.uint8]", np.floor(stretched + np.float32(0.5)).clip(0, most).astype(kind))


def to_grey(saliency: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Returns the 8-bit map `(H, W)` that the published code saves: stretched from its own limits, and rounded."""
    return cast("NDArray[np.uint8]", to_levels(saliency, (saliency.min(), saliency.max())))


def render(frame_bgr: NDArray[np.uint8], grey: NDArray[np.uint8], look: Look = PUBLISHED) -> NDArray[np.uint8]:
    """Draws a picture for people.

    Args:
        frame_bgr: uint8 `(h, w, 3)`, the source frame.
        grey: uint8 `(H, W)`, from `to_levels`, at network size.
        look: how to draw; its view is `overlay` (heat map over the frame), `map` (grey map), or `side-by-side` (the
            frame, then the overlay).

    Returns:
        uint8 BGR `(h, w, 3)`; `(h, 2w, 3)` for `side-by-side`.
    """
    height, width = frame_bgr.shape[:2]
    # The small map is coloured before it is enlarged: at 1080p that takes 1.8 ms, colouring the large one takes 4.0 ms.
    is_map = look.view == "map"
    small = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) if is_map else cv2.applyColorMap(grey, COLORMAPS[look.colormap])
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    if not is_map:
        large = cv2.addWeighted(frame_bgr, 1 - look.opacity, large, look.opacity, 0)
    if look.view == "side-by-side":
        large = np.hstack([frame_bgr, large])
    return cast("NDArray[np.uint8]", large)
