"""Which frames of a source are run."""

from __future__ import annotations

from dataclasses import dataclass

from salema.runtime.errors import UsageError
from salema.runtime.spec import check_fps

_LEAST_S, _LONGEST_S, _MOST = 1e-3, 1e6, 10**9


@dataclass(frozen=True)
class Selection:
    """Which frames of a source are run.

    Attributes:
        start_s: seconds from the start to leave out.
        duration_s: seconds to run, or None for all.
        stride: one in so many frames.
        max_frames: how many frames to run at most, or None.
        loop: how often to play it; 0 plays it until it is stopped.
        fps: frames per second of images, which have no times.
        every_frame: of live sources too, instead of the newest one whenever the network is free.
        reconnects: how often to try to connect again after each loss of a live source.
        strict: whether the first place that is damaged ends it, instead of being left out.
        live: whether URLs without a length are live; of some that is known anyway.
        deinterlace: whether interlaced pictures are made whole ones.
    """

    start_s: float = 0
    duration_s: float | None = None
    stride: int = 1
    max_frames: int | None = None
    loop: int = 1
    fps: float = 25
    every_frame: bool = False
    reconnects: int = 10
    strict: bool = False
    live: bool = False
    deinterlace: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start_s <= _LONGEST_S:
            raise UsageError(f"--start-time {self.start_s:g}: give seconds, 0 to {_LONGEST_S:g}")
        if self.duration_s is not None and not _LEAST_S <= self.duration_s <= _LONGEST_S:
            raise UsageError(f"--duration {self.duration_s:g}: give seconds, {_LEAST_S:g} to {_LONGEST_S:g}")
        check_fps("--fps", self.fps)
        for option, value, least, most in (
            ("--vid-stride", self.stride, 1, 100_000),  # FFmpeg takes no less than a frame in some hours
            ("--max-frames", self.max_frames, 1, _MOST),
            ("--loop", self.loop, 0, _MOST),
            ("--reconnects", self.reconnects, 0, _MOST),
        ):
            if value is not None and not least <= value <= most:
                raise UsageError(f"{option} {value}: give a whole number, {least} to {most}")
