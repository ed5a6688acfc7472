"""Frames, and what every reader of a source provides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from salema.runtime.video.sound import Sound, Track

GAP_S = 1.0  # a longer time without a picture is a gap, after which the state is reset


@dataclass(frozen=True)
class Frame:
    """One upright frame.

    Attributes:
        image_bgr: uint8 `(h, w, 3)`.
        pts: time stamp in units of the reader's time base.
        duration: length in the same units.
        starts_anew: whether the state is reset before it: it is the first frame, follows a gap or a jump in time, or
            has another size than the frame before.
    """

    image_bgr: NDArray[np.uint8]
    pts: int
    duration: int
    starts_anew: bool = False


class SilentReader:
    """What readers of still pictures have in common: no sound, and square pixels."""

    is_live = False
    sound: Track | None = None
    has_lost_sound = False
    aspect = Fraction(1)


class Reader(Protocol):
    """The frames of one source, once, in order.

    Attributes:
        name: the source's name in messages, without passwords.
        height: rows of the first upright frame.
        width: columns of the first upright frame.
        rate: average frames per second.
        time_base: seconds per unit of a frame's time stamp.
        aspect: a pixel's width over its height, as an upright frame is shown.
        frame_count: number of frames the source should have, or None if unknown.
        is_live: whether frames come in real time, without an end.
        has_lost_sound: whether the source has sound that is not kept, as that of live sources.
    """

    name: str
    height: int
    width: int
    rate: Fraction
    time_base: Fraction
    aspect: Fraction
    frame_count: int | None
    is_live: bool
    has_lost_sound: bool

    @property
    def sound(self) -> Sound | Track | None:
        """The sound, timed as the frames are, or None."""

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames, with time stamps that start near zero and always grow.

        Raises:
            VideoError: the source breaks off, after the frames that could be read.
        """

    def close(self) -> None:
        """Closes the source."""
