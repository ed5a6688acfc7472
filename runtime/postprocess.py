"""From the raw sigmoid map to what people look at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

import cv2
import numpy as np

from salema.runtime.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        normalise: what becomes black and white: `frame`, the map's own least and greatest value, as published;
            `running`, those of the last second or so, which flickers less; `none`, 0 and 1.
        colormap: one of `COLORMAPS`, for the overlay.
        opacity: of the overlay's colours, 0 to 1.

    Raises:
        UsageError: a value is none of these.
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
    """What comes out for one source frame.

    Attributes:
        grey: uint8 `[H, W]`, the map in levels; with the published look what the published code saves.
        image_bgr: uint8 `[h, w, 3]`, or None where none was asked for.
        limits: the values of the raw map that became 0 and 255.
        range: the raw map's least and greatest value, both NaN where it holds one.
        saliency: float32 `[H, W]`, the raw map, or None where it was not asked for.
    """

    grey: NDArray[np.uint8]
    image_bgr: NDArray[np.uint8] | None
    limits: tuple[np.float32, np.float32]
    range: tuple[float, float]
    saliency: NDArray[np.float32] | None

    @property
    def is_finite(self) -> bool:
        """Whether the raw map held neither NaN nor infinity."""
        return bool(np.isfinite(self.range).all())


class Normaliser:
    """Chooses the values of a map that become black and white."""

    def __init__(self, normalise: Normalise) -> None:
        self._normalise = normalise
        self._low = self._high = math.nan

    def limits(
        self, saliency: NDArray[np.float32], elapsed_s: float = 0, *, starts_anew: bool = False
    ) -> tuple[np.float32, np.float32]:
        """Takes the next map `(H, W)`, `elapsed_s` after the one before; returns its limits.

        Running limits follow a wider range at once, so that nothing is cut off, and a narrower one by 63 % a second.
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
    """Returns a map `(H, W)` in whole levels, of 8 or 16 bits: stretched from its limits, rounded.

    Halves go up, all in float32: the published code's `save_image` adds 0.5 and cuts off (torchvision 0.2.2 and later).
    To the nearest even level, or in float64, about one pixel in 100 000 would be another level.

    Where the limits are not apart, all is 0 (the published code divides by zero there).
    """
    low, high = limits
    kind, most = (np.uint8, 255) if bits == 8 else (np.uint16, 65535)  # noqa: PLR2004
    if not high > low:
        return np.zeros(saliency.shape, kind)
    stretched = (saliency - low) / (high - low) * np.float32(most)
    return cast("NDArray[np.uint8]", np.floor(stretched + np.float32(0.5)).clip(0, most).astype(kind))


def to_grey(saliency: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Returns the 8-bit map `(H, W)` that the published code saves: stretched by its own limits, rounded."""
    return cast("NDArray[np.uint8]", to_levels(saliency, (saliency.min(), saliency.max())))


def render(frame_bgr: NDArray[np.uint8], grey: NDArray[np.uint8], look: Look = PUBLISHED) -> NDArray[np.uint8]:
    """Draws a picture for people.

    Args:
        frame_bgr: uint8 `(h, w, 3)`, the source frame.
        grey: uint8 `(H, W)`, from `to_levels`, at network size.
        look: its view is `overlay` (heat map over the frame), `map` (grey map), or `side-by-side` (the frame, then the
            overlay).

    Returns:
        uint8 BGR `(h, w, 3)`; `(h, 2w, 3)` for `side-by-side`.
    """
    height, width = frame_bgr.shape[:2]
    # Colours go onto the small map: at 1080p that takes 1.8 ms where colouring the large one takes 4.0.
    is_map = look.view == "map"
    small = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) if is_map else cv2.applyColorMap(grey, COLORMAPS[look.colormap])
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    if not is_map:
        large = cv2.addWeighted(frame_bgr, 1 - look.opacity, large, look.opacity, 0)
    if look.view == "side-by-side":
        large = np.hstack([frame_bgr, large])
    return cast("NDArray[np.uint8]", large)
