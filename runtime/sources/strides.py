"""One in so many frames, each as long as it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from salema.runtime.errors import VideoError
from salema.runtime.sources.frames import Frame


def strided(frames: Iterator[Frame], stride: int) -> Iterator[Frame]:
    """Yields one in so many frames, once it is known how long it is shown: until the next of them, or the end.

    Raises:
        VideoError: the source breaks off; the frames before were yielded.
    """
    held, end, broken = None, 0, None
    try:
        for index, frame in enumerate(_with_what_was_left_out(frames, stride)):
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
    """As `strided`, but a frame need not wait for the next one: its length is what it should be."""
    for index, frame in enumerate(_with_what_was_left_out(frames, stride)):
        if index % stride == 0:
            yield replace(frame, duration=frame.duration * stride)


def _with_what_was_left_out(frames: Iterator[Frame], stride: int) -> Iterator[Frame]:
    """Yields all frames; one in so many begins anew if one that is left out before it does."""
    anew = False
    for index, frame in enumerate(frames):
        anew = anew or frame.starts_anew
        yield replace(frame, starts_anew=anew)
        if index % stride == 0:
            anew = False
