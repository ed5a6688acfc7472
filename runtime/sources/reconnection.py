"""Connects again to a live source (RTSP and the like) that was lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential
from tenacity.nap import sleep_using_event

from salema.runtime.errors import VideoError
from salema.runtime.sources.frames import Frame, Reader
from salema.runtime.sources.live import Losses
from salema.runtime.wording import counted

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0


class Reconnecting:
    """The frames of a live source across outages. Time stamps include the outages.

    `reopen` opens the source again, up to `attempts` times in each outage, after 0.5, 1, 2, ... and at most 30 seconds;
    `stop`, once set, ends the waiting. `has_end` says that a stream that ends without an error is over rather than
    lost.
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
        """Yields frames until a stop or the end.

        Raises:
            VideoError: the source is lost, and does not come back.
        """
        count, offset, end, seen = 0, 0, 0, time.monotonic()
        while True:
            why = "the stream ended"
            scale = self._reader.time_base / self._time_base
            try:
                for index, frame in enumerate(self._reader):
                    if index == 0 and count:
                        offset = end + self._count_outage(seen)
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

    def _count_outage(self, seen: float) -> int:
        """Returns how long the source was away, in units of the time base."""
        away_s = time.monotonic() - seen
        self._losses.outages += 1
        self._losses.outage_s += away_s
        self._notify(f"{self._reader.name}: back after {away_s:.1f} s")
        return round(away_s / float(self._time_base))

    def _connect(self, count: int, why: str) -> bool:
        """Opens the source again; returns False after a stop."""
        name = self._reader.name
        lost = f"{name}: lost after {counted(count, 'frame')} ({why.removeprefix(f'{name}: ')})"
        if not self._attempts:
            raise VideoError(lost)
        self._notify(f"{lost}; connecting again")
        if self._stop.wait(_FIRST_WAIT_S):  # don't flood a server that accepts and drops connections
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
            raise VideoError(f"{lost}, and did not come back in {attempts} attempts") from error
        return not self._stop.is_set()

    def close(self) -> None:
        """Closes the source."""
        self._reader.close()
