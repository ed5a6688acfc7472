"""Plays the server's own sources in real time, and goes on after they were lost."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal

from salema.runtime.errors import MissingDependencyError, SalemaError, UsageError, reason
from salema.runtime.run.stage_threads import SOURCE_THREAD
from salema.runtime.serve.streams import Stream
from salema.runtime.sources.frames import Frame
from salema.runtime.sources.live import Losses, Newest
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import Source, find_sources

State = Literal["opening", "playing", "lost", "ended"]
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
_JOIN_S = 1.0
_ALWAYS = 10**9


@dataclass(frozen=True)
class _Arrived(Frame):
    """A frame, and when it came, by `time.monotonic`."""

    arrived_s: float = 0.0


class SourceStream:
    """One source, played in real time from when it is started until it is stopped: files in a loop, live ones again.

    Where the network is slower than the source, the frames between are dropped, unless the selection wants every one.

    Attributes:
        source: the source.
        stream: its results.
        state: what it does now.
        problem: why it gives no frames now, in a sentence; else empty.
        settled: set once it has given a frame or failed to.
    """

    def __init__(self, source: Source, stream: Stream, selection: Selection, notify: Callable[[str], None]) -> None:
        self.source, self.stream = source, stream
        self.state: State = "opening"
        self.problem = ""
        self.settled = threading.Event()
        self._notify = notify
        self._every_frame, self._stop = selection.every_frame, threading.Event()
        # Frames are dropped here and not by Playback, so that each has its time of arrival.
        self._selection = replace(selection, every_frame=True, reconnects=_ALWAYS)
        self._number, self._lost_s, self._state_lock = 0, -math.inf, threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True, name=SOURCE_THREAD)

    def start(self) -> None:
        """Begins to play."""
        self._thread.start()

    def stop(self) -> None:
        """Asks for the end, and does not wait."""
        self._stop.set()
        self.stream.latest.end()

    def close(self) -> None:
        """Ends it, and waits a moment. A thread that hangs in a driver is left behind."""
        self.stop()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        wait_s = _FIRST_WAIT_S
        try:
            while not self._stop.is_set():
                before = self._number
                if self._play_once():
                    return
                wait_s = _FIRST_WAIT_S if self._number > before else wait_s
                self._stop.wait(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        finally:
            self.stream.close()

    def _play_once(self) -> bool:
        """Plays the source until it ends or is lost; returns whether it is over."""
        try:
            self._find()
            selection = replace(self._selection, loop=0 if self.source.repeatable else 1)
            with Playback(self.source, selection, self._stop, self._lost) as playback:
                self._take_all(playback)
            self.state, self.problem = "ended", ""
        except (UsageError, MissingDependencyError) as error:  # it would fail again
            if not self._stop.is_set():
                self._fail(str(error))
            return True
        except Exception as error:  # noqa: BLE001 - of whatever library; the other sources go on
            if not self._stop.is_set():
                self._fail(str(error) if isinstance(error, SalemaError) else reason(error))
            return self._stop.is_set()
        return True

    def _find(self) -> None:
        """Looks again for a source that was not there."""
        if self.source.problem:
            found = find_sources([self.source.given], strict=False)
            if len(found) == 1:
                self.source = replace(found[0], name=self.source.name)

    def _take_all(self, playback: Playback) -> None:
        losses = Losses()
        frames = _stamped(playback if playback.is_live else self._in_real_time(playback))
        if not self._every_frame:
            frames = iter(Newest(frames, self._stop.is_set, losses))
        dropped = 0
        for frame in frames:
            if self._stop.is_set():
                return
            assert isinstance(frame, _Arrived)
            self._number += 1
            result = self.stream.step(frame.image_bgr, self._number, frame.arrived_s, starts_anew=frame.starts_anew)
            self.stream.pace.drop(losses.dropped - dropped, "busy")
            dropped = losses.dropped
            self.stream.latest.put(result)
            self._playing(frame.arrived_s)

    def _in_real_time(self, playback: Playback) -> Iterator[Frame]:
        """Yields the frames of files when they are due."""
        start_s: float | None = None
        for frame in playback:
            due_s = float(frame.pts * playback.time_base)
            start_s = time.monotonic() - due_s if start_s is None else start_s
            if self._stop.wait(max(start_s + due_s - time.monotonic(), 0)):
                return
            yield frame

    def _playing(self, arrived_s: float) -> None:
        # In the step's thread, `_lost` in the reader's: a frame that came before a loss says nothing of now.
        with self._state_lock:
            if arrived_s > self._lost_s:
                self.state, self.problem = "playing", ""
        self.settled.set()

    def _lost(self, sentence: str) -> None:
        with self._state_lock:
            self._lost_s = time.monotonic()
            self.state, self.problem = "lost", sentence
        self._notify(sentence)

    def _fail(self, sentence: str) -> None:
        if sentence != self.problem:  # told once, not at each attempt
            self._lost(sentence)
        self.settled.set()


def _stamped(frames: Iterator[Frame] | Playback) -> Iterator[Frame]:
    for frame in frames:
        given = {field.name: getattr(frame, field.name) for field in fields(Frame)}
        yield _Arrived(**given, arrived_s=time.monotonic())
