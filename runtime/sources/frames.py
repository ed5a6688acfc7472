"""What every source of frames gives, whatever it reads from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from salema.runtime.video.sound import Sound, Track

GAP_S = 1.0  # more time without a picture is a gap: what was seen before it says nothing of what comes after


@dataclass(frozen=True)
class Frame:
    """One upright frame.

    Attributes:
        image_bgr: uint8 `(h, w, 3)`.
        pts: its time stamp, in units of the reader's time base.
        duration: in the same units.
        starts_anew: whether what came before says nothing about it: it is the first, or follows a gap, or a jump in
            time, or has another size than the one before.
    """

    image_bgr: NDArray[np.uint8]
    pts: int
    duration: int
    starts_anew: bool = False


class Reader(Protocol):
    """Frames of one source, once, in order; never more than one is held.

    Attributes:
        name: the source, for messages; without passwords.
        height: rows of the first upright frame.
        width: columns of the first upright frame.
        rate: frames per second, on average.
        time_base: seconds per unit of a frame's time stamp.
        aspect: width of a shown pixel of an upright frame over its height.
        frame_count: how many frames there should be, or None where that is not known.
        is_live: whether frames come at their own pace and have no end.
        has_lost_sound: whether the source has sound that can't be had: that of live ones.
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
        """The sound, with the frames' times, or None."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames, with time stamps that start near zero and always grow.

        Raises:
            VideoError: the source breaks off; the frames before were yielded.
        """
        ...

    def close(self) -> None:
        """Lets the source go."""
        ...
