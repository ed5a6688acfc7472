"""The places of streams in one model: in batches, or in turns."""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from salema.runtime.batching.stream_batch import StreamBatch
from salema.runtime.errors import UsageError
from salema.runtime.stream import SaliencyStream


class Place(Protocol):
    """One stream's place in the model, with its own state."""

    def step(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `SaliencyStream.step`; blocks."""
        ...

    def reset(self) -> None:
        """See `SaliencyStream.reset`."""
        ...

    def close(self) -> None:
        """Gives the place back."""
        ...


class Places(Protocol):
    """Gives places in one model, and frees the model when it is closed; `StreamBatch` is one."""

    def take_place(self, timeout_s: float | None = None) -> Place | None:
        """Returns a place whose memory is empty; None if none becomes free in time."""
        ...

    def close(self) -> None:
        """Frees the model."""
        ...


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


class Turns:
    """Any number of places in a model of one stream, which take turns: of those that wait, the one least lately served.

    So one that floods the server holds up the others for one step at most.

    Args:
        stream: the model, open; closed with the places.
    """

    def __init__(self, stream: SaliencyStream) -> None:
        self._stream = stream
        self._changed = threading.Condition()
        self._waiting: set[_Turn] = set()
        self._is_busy = False
        self._last: _Turn | None = None
        self._served = 0

    def take_place(self, timeout_s: float | None = None) -> Place:  # noqa: ARG002
        """See `Places.take_place`; there is always one."""
        with self._changed:
            self._served += 1  # of two that are as late, each would wait for the other
            return _Turn(self, self._served)

    def close(self) -> None:
        """See `Places.close`; waits for the step that is running."""
        with self._changed:
            while self._is_busy:
                self._changed.wait()
            self._stream.close()

    def step(self, place: _Turn, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Takes a place's next frame, when it is its turn."""
        with self._changed:
            self._waiting.add(place)
            while self._is_busy or place is not min(self._waiting, key=lambda waiting: waiting.served):
                self._changed.wait()
            self._waiting.discard(place)
            self._is_busy = True
        try:
            return self._step(place, frame)
        finally:
            with self._changed:
                self._served += 1
                place.served = self._served
                self._is_busy = False
                self._changed.notify_all()

    def _step(self, place: _Turn, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        own = place.stream or SaliencyStream(self._stream.session)
        keeps = own.session.keeps_states  # else a step of another place has overwritten what this one holds
        if not keeps and self._last is not place and place.held is not None:
            own.restore(place.held)
        self._last = None  # a step that fails may have overwritten it too
        saliency = own.step(frame)
        place.stream, self._last = own, place
        place.held = None if keeps else own.snapshot()
        return saliency


class _Turn:
    """A place of `Turns`. Without a stream of its own its memory is empty. A new one is as if it was just served."""

    def __init__(self, turns: Turns, served: int) -> None:
        self._turns, self.served = turns, served
        self.stream: SaliencyStream | None = None
        self.held: dict[str, NDArray[np.float32]] | None = None

    def step(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._turns.step(self, frame)

    def reset(self) -> None:
        self.stream = self.held = None

    def close(self) -> None:
        self.reset()
