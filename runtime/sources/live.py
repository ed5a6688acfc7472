"""Takes the newest frame of a live source, and counts the frames and time that are lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from salema.runtime.run.stage_threads import SOURCE_THREAD
from salema.runtime.sources.frames import Frame

_POLL_S = 0.1


@dataclass
class Losses:
    """What has been lost of a live source: frames that came while the network was busy, and the connection."""

    dropped: int = 0
    outages: int = 0
    outage_s: float = 0


class Newest:
    """Reads frames in a thread of its own, and yields the newest one each time; the others are dropped."""

    def __init__(self, frames: Iterator[Frame], is_over: Callable[[], bool], losses: Losses) -> None:
        self._frames, self._is_over, self._losses = frames, is_over, losses
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._error: BaseException | None = None
        self._ended = self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        """Yields the newest frame each time, none twice; ends with the source, or once `is_over()` is true."""
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
        except BaseException as error:  # noqa: BLE001 - __iter__ raises it
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
                # The dropped frame may have been the first after a gap.
                frame = replace(frame, starts_anew=frame.starts_anew or before.starts_anew)
            self._newest = frame
            self._changed.notify()
