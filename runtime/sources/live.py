"""Sources that have no end: taken at their newest frame, and connected again when they are lost."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential
from tenacity.nap import sleep_using_event

from salema.runtime.errors import VideoError
from salema.runtime.run.stage_threads import SOURCE_THREAD
from salema.runtime.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from salema.runtime.sources.frames import Frame, Reader

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_POLL_S = 0.1


@dataclass
class Losses:
    """What a live source has cost so far.

    Attributes:
        dropped: frames that came while the network was busy, and were left out.
        outages: how often the connection was lost, and found again.
        outage_s: for how long in all, in seconds.
    """

    dropped: int = 0
    outages: int = 0
    outage_s: float = 0


class Reconnecting:
    """The frames of a live source, over its outages; time goes on while it is away.

    Args:
        reader: the source as it is open now.
        reopen: opens it again.
        attempts: how often to try in each outage, after 0.5, 1, 2, ... and at last 30 seconds.
        stop: ends the waiting.
        losses: where outages are counted.
        notify: takes sentences for whoever watches.
        has_end: whether a stream that ends without an error is over, and not lost.
    """

    def __init__(
        self,
        reader: Reader,
        reopen: Callable[[], Reader],
        attempts: int,
        stop: threading.Event,
        losses: Losses,
        notify: Callable[[str], None],
        *,
        has_end: bool = False,
    ) -> None:
        self._has_end = has_end
        self._reader, self._reopen, self._attempts = reader, reopen, attempts
        self._stop, self._losses, self._notify = stop, losses, notify
        self._time_base = reader.time_base

    def __iter__(self) -> Iterator[Frame]:
        """Yields frames until a stop is asked for, or the end.

        Raises:
            VideoError: the source is lost, and can't be had again.
        """
        count, offset, end, seen = 0, 0, 0, time.monotonic()
        while True:
            why = "the stream ended"
            scale = self._reader.time_base / self._time_base
            try:
                for index, frame in enumerate(self._reader):
                    if index == 0 and count:
                        offset = end + self._found_again(seen)
                    pts, duration = offset + round(frame.pts * scale), max(round(frame.duration * scale), 1)
                    count, end, seen = count + 1, pts + duration, time.monotonic()
                    yield replace(frame, pts=pts, duration=duration)
                if self._has_end:
                    return
            except VideoError as error:
                why = str(error)
            if self._stop.is_set():
                return
            self._reader.close()
            if not self._connect(count, why):
                return

    def _found_again(self, seen: float) -> int:
        """Counts the outage; returns how long it was, in units of the time base."""
        away_s = time.monotonic() - seen
        self._losses.outages += 1
        self._losses.outage_s += away_s
        self._notify(f"{self._reader.name}: back after {away_s:.1f} s")
        return round(away_s / float(self._time_base))

    def _connect(self, count: int, why: str) -> bool:
        """Opens the source again; returns whether that was not stopped."""
        name = self._reader.name
        lost = f"{name}: lost after {counted(count, 'frame')} ({why.removeprefix(f'{name}: ')})"
        if not self._attempts:
            raise VideoError(lost)
        self._notify(f"{lost}; connecting again")
        if self._stop.wait(_FIRST_WAIT_S):  # a server that takes us and drops us is not to be asked at full speed
            return False
        retrying = Retrying(
            retry=retry_if_exception_type(VideoError),
            wait=wait_exponential(_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
            stop=lambda state: self._stop.is_set() or stop_after_attempt(self._attempts)(state),
            sleep=sleep_using_event(self._stop),
        )
        try:
            self._reader = retrying(self._reopen)
        except RetryError as error:
            if self._stop.is_set():
                return False
            attempts = error.last_attempt.attempt_number
            raise VideoError(f"{lost}, and not there again in {attempts} attempts") from error
        return not self._stop.is_set()

    def close(self) -> None:
        """Closes the source as it is open now."""
        self._reader.close()


class Newest:
    """Reads frames in a thread of its own, and gives the newest one whenever it is asked; the others are dropped."""

    def __init__(self, frames: Iterator[Frame], is_over: Callable[[], bool], losses: Losses) -> None:
        self._frames, self._is_over, self._losses = frames, is_over, losses
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._error: BaseException | None = None
        self._ended = self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        """Yields the newest frame each time, once; ends with the source, or once `is_over` says so."""
        threading.Thread(target=self._read, daemon=True, name=SOURCE_THREAD).start()
        try:
            while (frame := self._take()) is not None:
                yield frame
        finally:
            self._closed = True
        if self._error is not None:
            raise self._error

    def _take(self) -> Frame | None:
        with self._changed:
            while self._newest is None and not (self._ended or self._is_over()):
                self._changed.wait(_POLL_S)
            frame, self._newest = self._newest, None
            return None if self._is_over() else frame

    def _read(self) -> None:
        try:
            for frame in self._frames:
                if self._closed or self._is_over():
                    return
                self._put(frame)
        except BaseException as error:  # noqa: BLE001 - it is raised where the frames are taken
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def _put(self, frame: Frame) -> None:
        with self._changed:
            before = self._newest
            if before is not None:
                self._losses.dropped += 1
                # What was dropped may have been the first after a gap.
                frame = replace(frame, starts_anew=frame.starts_anew or before.starts_anew)
            self._newest = frame
            self._changed.notify()
