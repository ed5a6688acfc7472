"""Plays the selected frames of a source."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from salema.runtime.closing import Closing
from salema.runtime.errors import UsageError, VideoError
from salema.runtime.sources.frames import Frame, Reader
from salema.runtime.sources.live import Losses, Newest
from salema.runtime.sources.readers import open_reader
from salema.runtime.sources.reconnection import Reconnecting
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.strides import strided, strided_at_once
from salema.runtime.video.damage import Damage
from salema.runtime.video.sound import Sound, Track

if TYPE_CHECKING:
    from salema.runtime.sources.source import Source

_EARLY_S = 1e-6  # time stamps are rounded


class NoFrameError(VideoError):
    """The source ends before the first selected frame."""


class Playback(Closing):
    """An open `Reader` of the selected frames of one source, with times from zero.

    `stop`, once set, ends the frames, even while it waits for one. `notify` takes sentences for the user.

    Attributes:
        source: the source.
        selection: which of its frames are played.
        source_rate: frames per second of the source, before `stride`.
        start_s: where in the source the frames begin.
        sound: the sound of all passes, timed as the frames are, or None.
        has_end_of_sound: whether sound after the last picture is wanted.
        losses: what has been lost of a live source so far.
        damage: what could not be decoded so far.

    Raises:
        VideoError: the source can't be opened, or has no selected frame.
        UsageError: the selection doesn't fit the source.
        MissingDependencyError: a program that the source needs is not installed.
    """

    def __init__(
        self,
        source: Source,
        selection: Selection | None = None,
        stop: threading.Event | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        if source.problem:
            raise VideoError(source.problem)
        self.source, self.selection = source, selection or Selection()
        self.has_end_of_sound = self.selection.duration_s is None and self.selection.max_frames is None
        self.start_s = 0.0
        self._stop, self.losses = stop or threading.Event(), Losses()
        self._ended = threading.Event()
        if self.selection.loop != 1 and not source.repeatable:
            raise UsageError(f"--loop is for files and folders; {source.shown} can't be played again")
        strict = self.selection.strict
        self.damage = Damage(source.shown, is_fatal=strict, is_numbered=source.of_dataset)
        sound_damage = Damage(source.shown, is_fatal=strict)
        open_again = partial(open_reader, source, self.selection, self._stop, self.damage, sound_damage)
        reader = open_again()
        self.name, self.height, self.width = reader.name, reader.height, reader.width
        self.source_rate, self.time_base, self.aspect = reader.rate, reader.time_base, reader.aspect
        self.rate = reader.rate / self.selection.stride
        self.is_live = reader.is_live
        self.drops = self.is_live and not self.selection.every_frame
        self.sound = Sound(reader.sound) if isinstance(reader.sound, Track) else None
        self.has_lost_sound = reader.has_lost_sound
        self.frame_count = self._expected(reader)
        self._reader: Reader | Reconnecting = reader
        if self.is_live:
            attempts, has_end = self.selection.reconnects, source.kind == "pipeline"
            self._reader = Reconnecting(reader, open_again, attempts, self._stop, self.losses, notify, has_end=has_end)
        self._open_again = open_again
        self._selected = self._play()
        first = self._first()
        self._selected = itertools.chain([first], self._selected)

    def __iter__(self) -> Iterator[Frame]:
        if self.sound is not None and not self.sound.has_listener:
            self.sound.close()  # else it would wait for a listener
        if not self.drops:
            return self._selected
        return itertools.islice(iter(Newest(self._selected, self._is_over, self.losses)), self.selection.max_frames)

    def _first(self) -> Frame:
        try:
            first = next(self._selected, None)
        except BaseException:
            self.close()
            raise
        if first is None:
            self.close()
            if self._stop.is_set():
                raise VideoError(f"{self.name}: stopped before its first frame")
            raise NoFrameError(f"{self.name}: has no frame at --start-time {self.selection.start_s:g} or after")
        return first

    def _play(self) -> Iterator[Frame]:
        """Yields the frames of all passes, one pass after the other in time."""
        end = given = passes = before = 0
        most = None if self.drops else self.selection.max_frames  # dropped frames don't count
        while True:
            offset = self._offset = end
            for frame in self._pass():
                end = frame.pts + offset + frame.duration
                given += 1
                yield replace(frame, pts=frame.pts + offset)
                if given == most:
                    return
            passes += 1
            if passes == self.selection.loop or self._is_over() or not given:
                return
            if given == before:
                raise VideoError(f"{self.name}: gave no frame when it was played again; the file has changed")
            before = given
            if self.sound is not None:
                self.sound.end(end * self.time_base)
            self._reader.close()
            self._reader = self._open_again()

    def _pass(self) -> Iterator[Frame]:
        """Yields the selected frames of one pass, each with the length it is shown for."""
        stride = self.selection.stride
        if stride == 1:
            return self._part()
        return (strided_at_once if self.is_live else strided)(self._part(), stride)

    def _part(self) -> Iterator[Frame]:
        """Yields the frames of one pass between start and end; times count from the first one if a start is given."""
        chosen, tick = self.selection, self.time_base
        base, most = None, None
        for frame in self._reader:
            if self._is_over():
                return
            if frame.pts * tick < chosen.start_s - _EARLY_S:
                continue
            starts_anew = frame.starts_anew and not self.source.of_dataset
            if base is None:
                base, starts_anew = frame.pts if chosen.start_s else 0, True
                self.start_s = float(base * tick)
                self._begin_sound(base)
                most = None if chosen.duration_s is None else base + math.ceil((chosen.duration_s - _EARLY_S) / tick)
            if most is not None and frame.pts >= most:
                return
            duration = frame.duration if most is None else min(frame.duration, most - frame.pts)
            yield replace(frame, pts=frame.pts - base, duration=duration, starts_anew=starts_anew)

    def _begin_sound(self, base: int) -> None:
        track = None if isinstance(self._reader, Reconnecting) else self._reader.sound
        if self.sound is not None and isinstance(track, Track):
            self.sound.begin(track, base * self.time_base, self._offset * self.time_base)

    def _expected(self, reader: Reader) -> int | None:
        """Returns the expected number of frames, to within a few; None if unknown."""
        chosen = self.selection
        if reader.frame_count is None or not chosen.loop:
            return chosen.max_frames
        count = max(reader.frame_count - math.ceil(chosen.start_s * reader.rate), 1)
        if chosen.duration_s is not None:
            count = min(count, math.ceil(chosen.duration_s * reader.rate))
        count = -(-count // chosen.stride) * chosen.loop
        return count if chosen.max_frames is None else min(count, chosen.max_frames)

    def _is_over(self) -> bool:
        return self._stop.is_set() or self._ended.is_set()

    def end(self) -> None:
        """Ends the frames, also for a thread that is waiting for one."""
        self._ended.set()

    def close(self) -> None:
        """Closes the source."""
        self.end()
        if self.sound is not None:
            self.sound.close()
        self._reader.close()
