"""One step of several places in one batch, and the states that each of them gets back."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from salema.runtime.session import Session, States

Stepped = tuple[NDArray[np.float32], States]


@dataclass(frozen=True, eq=False)
class Row:
    """The states of one place: one stream of a session's states, or arrays `{name: [1, C, H, W]}` still on the host."""

    states: States = ()
    row: int = 0
    streams: int = 1
    arrays: Mapping[str, NDArray[np.float32]] | None = None


@dataclass(eq=False)
class Request:
    """A place's next frame, uint8 `[H, W, 3]` at network size, and the map and states that come of it."""

    place: int
    frame: NDArray[np.uint8]
    mix: np.float32
    before: Row
    since_s: float = field(default_factory=time.monotonic)
    is_given_up: bool = False
    done: Future[Stepped] = field(default_factory=Future)


class JointStep:
    """Steps the places that have a frame, in one batch.

    On the CPU a model with a free batch steps these alone. Elsewhere another batch size would cost new graphs or
    engines: each place has its row, a row without a frame gets a black one, and what comes of that is dropped.
    """

    def __init__(self, session: Session, streams: int) -> None:
        self._session, self._streams = session, streams
        self._takes_any = session.device == "cpu" and session.spec.batch is None
        self._lock = threading.Lock()

    def step(self, requests: Sequence[Request]) -> list[Stepped]:
        """Returns each request's map `[1, H, W]` and states."""
        rows = list(range(len(requests))) if self._takes_any else [request.place for request in requests]
        count = len(requests) if self._takes_any else self._streams
        first = requests[0].frame
        frames = np.zeros((count, *first.shape), first.dtype)
        mix = np.ones(count, np.float32)
        for row, request in zip(rows, requests, strict=True):
            frames[row], mix[row] = request.frame, request.mix
        with self._lock:
            before = self._together({row: request.before for row, request in zip(rows, requests, strict=True)}, count)
            maps, after = self._session.step(frames, before, mix)
            if not self._session.keeps_states:  # a place that misses the next step still needs its own
                after = self._session.gather([(after, row) for row in range(count)])
        return [(maps[row : row + 1], (Row(after, row, count),)) for row in rows]

    def to_host(self, held: Row) -> dict[str, NDArray[np.float32]]:
        """Copies one place's states to the host, as `{name: [1, C, H, W]}`."""
        if held.arrays is not None:
            return {name: array.copy() for name, array in held.arrays.items()}
        with self._lock:
            arrays = self._session.to_host(held.states)
        return {name: array[held.row : held.row + 1] for name, array in arrays.items()}

    def _together(self, rows: Mapping[int, Row], count: int) -> States:
        """Puts states together, each into its row; if they are as the last step left them, nothing is copied."""
        some = next(iter(rows.values()))
        is_whole = some.arrays is None and some.streams == count
        if is_whole and all(held.states is some.states and held.row == row for row, held in rows.items()):
            return some.states
        on_device = {row: self._on_device(held) for row, held in rows.items()}
        spare = next(iter(on_device.values()))
        return self._session.gather([on_device.get(row, spare) for row in range(count)])

    def _on_device(self, held: Row) -> tuple[States, int]:
        return (held.states, held.row) if held.arrays is None else (self._session.from_host(held.arrays), 0)
