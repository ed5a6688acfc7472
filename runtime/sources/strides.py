"""Takes every n-th frame, and lengthens it to fill the gap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from salema.runtime.errors import VideoError
from salema.runtime.sources.frames import Frame


def strided(frames: Iterator[Frame], stride: int) -> Iterator[Frame]:
    """Yields every `stride`th frame, lengthened until the next one or the end.

    Raises:
        VideoError: the source breaks off, after the frames that could be read.
    """
    held, end, broken = None, 0, None
    try:
        for index, frame in enumerate(_anew_after_skipped(frames, stride)):
            end = frame.pts + frame.duration
            if index % stride == 0:
                if held is not None:
                    yield replace(held, duration=frame.pts - held.pts)
                held = frame
    except VideoError as error:
        broken = error
    if held is not None:
        yield replace(held, duration=end - held.pts)
    if broken is not None:
        raise broken


def strided_at_once(frames: Iterator[Frame], stride: int) -> Iterator[Frame]:
    """As `strided`, but without waiting for the next frame: each is made `stride` times as long."""
    for index, frame in enumerate(_anew_after_skipped(frames, stride)):
        if index % stride == 0:
            yield replace(frame, duration=frame.duration * stride)


def _anew_after_skipped(frames: Iterator[Frame], stride: int) -> Iterator[Frame]:
    """Yields all frames; a taken one starts anew if a skipped one before it does."""
    starts_anew = False
    for index, frame in enumerate(frames):
        starts_anew = starts_anew or frame.starts_anew
        yield replace(frame, starts_anew=starts_anew)
        if index % stride == 0:
            starts_anew = False
