"""Frames of a user's videos for INT8: runs of consecutive frames to calibrate on, and others to check on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from salema.runtime.errors import UsageError, VideoError
from salema.runtime.preprocess import to_network_size
from salema.runtime.sources.playback import NoFrameError, Playback
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import Source, find_sources

RUN = 16
"""Frames in a row: enough for the state of an average with a coefficient of 0.1 to settle."""
LEAST_HELD_OUT = 8
MOST_HELD_OUT = 300


@dataclass(frozen=True)
class Footage:
    """Frames at network size, uint8 BGR.

    Attributes:
        runs: each `[T, H, W, 3]`, consecutive frames from the first two thirds of a source; each begins with an empty
            state.
        held_out: `[T, H, W, 3]`, consecutive frames from the last third of each source, source after source.
        sources: their names.
    """

    runs: tuple[NDArray[np.uint8], ...]
    held_out: NDArray[np.uint8]
    sources: tuple[str, ...]

    @property
    def count(self) -> int:
        """The number of frames in the runs."""
        return sum(len(run) for run in self.runs)


@dataclass(frozen=True)
class _Clip:
    source: Source
    frames: int
    rate: Fraction

    @property
    def room(self) -> int:
        """The number of frames, from the first on, to calibrate on."""
        return self.frames * 2 // 3


def gather(given: str, frames: int, height: int, width: int) -> Footage:
    """Reads so many frames to calibrate INT8 on, and others to check it on, spread over the sources that are given.

    Raises:
        UsageError: it is no file or folder, or the number is below 1.
        VideoError: it can't be read, or has too few frames.
    """
    if frames < 1:
        raise UsageError(f"--calib-frames {frames}: give 1 or more; 64 is a good number")
    clips = _choose(find_sources([given]), frames)
    _check_room(given, clips, frames)
    runs = [
        _take(clip, first, length, height, width)
        for clip, lengths in zip(clips, _share(clips, frames), strict=True)
        for first, length in zip(_spread(lengths, clip.room), lengths, strict=True)
    ]
    most = -(-MOST_HELD_OUT // len(clips))
    held_out = [_take(clip, clip.room, min(clip.frames - clip.room, most), height, width) for clip in clips]
    footage = Footage(
        tuple(run for run in runs if len(run)), np.concatenate(held_out), tuple(clip.source.shown for clip in clips)
    )
    if 2 * footage.count < frames or len(footage.held_out) < LEAST_HELD_OUT:
        raise VideoError(
            f"--calib {given}: its frames lie unevenly in time, and where its rate puts them only {footage.count} of"
            f" {frames} to calibrate on and {len(footage.held_out)} to check on were found; give a folder of its frames"
        )
    return footage


def _check_room(given: str, clips: list[_Clip], frames: int) -> None:
    room, total = sum(clip.room for clip in clips), sum(clip.frames for clip in clips)
    if room < frames or total - room < LEAST_HELD_OUT:
        enough = max(-(-frames * 3 // 2), 3 * LEAST_HELD_OUT)
        fewer = f", or --calib-frames {room}" if room >= RUN else ""
        raise VideoError(
            f"--calib {given}: has {total} frames; --calib-frames {frames} takes {enough}, two thirds of them to"
            f" calibrate on and the rest to check on; give a longer video{fewer}"
        )


def _choose(sources: list[Source], frames: int) -> list[_Clip]:
    """Takes sources spread over the list, one for each run, and more if these have too few frames."""
    runs = -(-frames // RUN)
    step = max(len(sources) // runs, 1)
    clips: list[_Clip] = []
    for source in (sources[index] for first in range(step) for index in range(first, len(sources), step)):
        if not source.repeatable:
            raise UsageError(f"--calib {source.shown}: give a video file, or a folder of videos or frames")
        clips.append(_look_at(source))
        if len(clips) >= runs and sum(clip.room for clip in clips) >= frames:
            break
    return clips


def _look_at(source: Source) -> _Clip:
    with Playback(source) as playback:
        count = playback.frame_count
        return _Clip(source, sum(1 for _ in playback) if count is None else count, playback.rate)


def _share(clips: list[_Clip], frames: int) -> list[list[int]]:
    """Gives the clips runs in turn, while they have room; returns the lengths of each clip's runs."""
    lengths: list[list[int]] = [[] for _ in clips]
    while frames:
        for clip, given in zip(clips, lengths, strict=True):
            length = min(RUN, frames, clip.room - sum(given))
            if length:
                given.append(length)
                frames -= length
    return lengths


def _spread(lengths: list[int], room: int) -> list[int]:
    """Returns where runs of these lengths begin, with even gaps between them."""
    gaps = room - sum(lengths)
    return [sum(lengths[:index]) + gaps * index // len(lengths) for index in range(len(lengths))]


def _take(clip: _Clip, first: int, count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Reads `count` frames, or fewer if the rate varies: frames outside of their time are not taken."""
    frames = np.empty((count, height, width, 3), np.uint8)
    taken = 0
    for taken, image_bgr in enumerate(_read(clip, first, count), 1):
        frames[taken - 1] = to_network_size(image_bgr, height, width)
    return frames[:taken]


def _read(clip: _Clip, first: int, count: int) -> Iterator[NDArray[np.uint8]]:
    if clip.source.images:
        strict = Selection(strict=True)  # no unreadable image may be left out
        with Playback(replace(clip.source, images=clip.source.images[first : first + count]), strict) as playback:
            yield from (frame.image_bgr for frame in playback)
        return
    # A quarter of a frame early: containers round times, Matroska to milliseconds.
    start_s, end_s = (max(float((number - Fraction(1, 4)) / clip.rate), 0) for number in (first, first + count))
    try:
        with Playback(clip.source, Selection(start_s=start_s, max_frames=count)) as playback:
            for frame in playback:
                if playback.start_s + frame.pts * playback.time_base >= end_s:
                    return
                yield frame.image_bgr
    except NoFrameError:
        return
