"""The places of streams in one model: in batches, or in turns."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from salema.runtime.batching.stream_batch import StreamBatch
from salema.runtime.cpu import usable_cores
from salema.runtime.errors import BackendError, UsageError
from salema.runtime.preprocess import to_network_size
from salema.runtime.stream import SaliencyStream

Slot = AbstractContextManager[Any]


def open_places(stream: SaliencyStream, count: int, max_wait_ms: float) -> Places:
    """Returns so many places in a model: they step in batches where it has a batch, else in turns.

    Args:
        stream: the model, open; closed with the places, or if this fails.
        count: how many places are wanted.
        max_wait_ms: see `StreamBatch`.

    Raises:
        UsageError: the model has a batch of fewer streams, or the time is not possible; see `StreamBatch`.
    """
    try:
        return _places_of(stream, count, max_wait_ms)
    except BaseException:
        stream.close()
        raise


def _places_of(stream: SaliencyStream, count: int, max_wait_ms: float) -> Places:
    batch = stream.spec.batch
    if batch == 1:
        return Turns(stream)
    if batch is None:
        return StreamBatch(SaliencyStream(stream.session, count, stream.model), max_wait_ms)
    if count > batch:
        raise UsageError(
            f"{count} streams (--max-streams, and one for each source) are more than the model's batch of {batch};"
            " give fewer --max-streams, or export it with --batch dynamic"
        )
    return StreamBatch(stream, max_wait_ms)


def slot_of(places: Places) -> Slot:
    """Returns what is held around all work for a large frame.

    In turns large frames have half of the cores, from decoding to encoding, so that the others find the rest free. In
    batches frames wait for each other, and nothing is held.
    """
    return threading.BoundedSemaphore(max(1, usable_cores() // 2)) if isinstance(places, Turns) else nullcontext()


class Turns:
    """Any number of places in a model of one stream, which take turns: of those that wait, the one least lately served.

    So one that floods the server holds up the others for one step at most. A new place is as if it was served one round
    ago: its first frame goes before those of all who flood, and after one more round they are before those who come
    anew all the time.

    Args:
        stream: the model, open; closed with the places.
    """

    def __init__(self, stream: SaliencyStream) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting: dict[Turn, None] = {}  # in the order of their frames
        self._running: Turn | None = None
        self._last: Turn | None = None
        self._steps = self._newest = 0
        self._is_open = True

    def take_place(self, timeout_s: float | None = None) -> Turn:  # noqa: ARG002
        """See `StreamBatch.take_place`; there is always one."""
        with self._lock:
            self._newest = max(self._newest, self._steps - len(self._waiting))  # never before one that came before it
            return Turn(self, self._newest, threading.Condition(self._lock))

    def close(self) -> None:
        """Ends all waits, and frees the model after the step that is running."""
        with self._lock:
            self._is_open = False
            for place in list(self._waiting):
                self._give_up(place)
            while self._running is not None:
                self._idle.wait()
            self._stream.close()

    def give_up(self, place: Turn) -> None:
        """Ends a place's wait for its turn."""
        with self._lock:
            self._give_up(place)

    def step(self, place: Turn, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Takes a place's next frame, when it is its turn.

        Raises:
            UsageError: the model is closed.
            BackendError: the wait was given up.
        """
        spec = self._stream.spec
        # Before its turn: a large frame takes its time.
        frames = np.stack([to_network_size(frame, spec.height, spec.width)])
        with self._lock:
            if not self._is_open:
                raise UsageError("the model is closed; load it again")
            self._waiting[place] = None
            self._choose()
            while place in self._waiting:
                place.changed.wait()
            if self._running is not place:
                raise BackendError("the step was aborted")
        try:
            return self._step(place, frames)
        finally:
            with self._lock:
                self._steps += 1
                place.served = self._steps
                self._running = None
                self._choose()
                self._idle.notify_all()

    def _give_up(self, place: Turn) -> None:
        self._waiting.pop(place, None)
        place.changed.notify()

    def _choose(self) -> None:
        """Gives the turn to the next place and wakes it alone, unless a step is running."""
        if self._running is not None or not self._waiting:
            return
        self._running = min(self._waiting, key=lambda place: place.served)
        self._give_up(self._running)

    def _step(self, place: Turn, frames_nhwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        own = place.stream or SaliencyStream(self._stream.session)
        keeps = own.session.keeps_states  # else a step of another place has overwritten what this one holds
        if not keeps and self._last is not place and place.held is not None:
            own.restore(place.held)
        self._last = None  # a step that fails may have overwritten it too
        maps = own.infer(frames_nhwc)
        place.stream, self._last = own, place
        place.held = None if keeps else own.snapshot()
        saliency: NDArray[np.float32] = maps[0]
        return saliency


class Turn:
    """A place of `Turns`, used as a `SaliencyStream`; `served` is the number of its last step.

    Without a stream its memory is empty.
    """

    def __init__(self, turns: Turns, served: int, changed: threading.Condition) -> None:
        self._turns, self.served, self.changed = turns, served, changed
        self.stream: SaliencyStream | None = None
        self.held: dict[str, NDArray[np.float32]] | None = None

    def step(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `SaliencyStream.step`; blocks."""
        return self._turns.step(self, frame)

    def abort(self) -> None:
        """Ends the wait of a frame whose step has not begun: `step` raises BackendError in its thread."""
        self._turns.give_up(self)

    def reset(self) -> None:
        """See `SaliencyStream.reset`."""
        self.stream = self.held = None

    close = reset


Place: TypeAlias = SaliencyStream | Turn
"""One stream's place in the model, with its own state."""
Places: TypeAlias = StreamBatch | Turns
"""Gives places in one model, and frees the model when it is closed."""
