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
        start_s: seconds to leave out at the start.
        duration_s: seconds to run, or None for all.
        stride: run every `stride`th frame.
        max_frames: greatest number of frames to run, or None.
        loop: how often to play the source; 0 plays it until it is stopped.
        fps: frames per second of images.
        every_frame: whether to run every frame of a live source, not only the newest whenever the network is free.
        reconnects: how often to try to connect again after each loss of a live source.
        strict: whether the first damaged packet or image ends the source, instead of being left out.
        live: whether to treat URLs without a length as live; RTSP and the like always are.
        deinterlace: whether to deinterlace interlaced pictures.
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
