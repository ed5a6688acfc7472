"""One step of several places in one batch, and the states that each of them gets back."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salema.runtime.postprocess import ToDraw
from salema.runtime.session import PictureSession, Session, States

Stepped = tuple[Any, States]
"""A map `[1, H, W]` or `Pictures`, whichever was asked for, and the states after the step."""


@dataclass(frozen=True, eq=False)
class Row:
    """The states of one place: one stream of a session's states, or arrays `{name: [1, C, H, W]}` still on the host."""

    states: States = ()
    row: int = 0
    streams: int = 1
    arrays: Mapping[str, NDArray[np.float32]] | None = None


@dataclass(eq=False)
class Request:
    """A place's next frame, and what comes of it: of uint8 `[H, W, 3]` at network size a map, of `ToDraw` pictures."""

    place: int
    frame: NDArray[np.uint8] | ToDraw
    mix: np.float32
    before: Row
    since_s: float = field(default_factory=time.monotonic)
    is_given_up: bool = False
    done: Future[Stepped] = field(default_factory=Future)


class JointStep:
    """Steps the places that have a frame, in one batch.

    On the CPU a model with a free batch steps these alone. Elsewhere another batch size would cost new graphs or
    engines: each place has its row, a row without a frame gets any, and what comes of that is dropped.
    """

    def __init__(self, session: Session, streams: int) -> None:
        self._session, self._streams = session, streams
        self._takes_any = session.device == "cpu" and session.spec.batch is None
        self._lock = threading.Lock()

    def groups(self, requests: Sequence[Request]) -> list[list[Request]]:
        """Divides requests into those that can be one step: maps only, and pictures."""
        drawn = [request for request in requests if isinstance(request.frame, ToDraw)]
        plain = [request for request in requests if not isinstance(request.frame, ToDraw)]
        return [group for group in (plain, drawn) if group]

    def step(self, requests: Sequence[Request]) -> list[Stepped]:
        """Returns what comes of each request of one group."""
        count = len(requests) if self._takes_any else self._streams
        rows = dict(enumerate(requests)) if self._takes_any else {request.place: request for request in requests}
        mix = np.ones(count, np.float32)
        for row, request in rows.items():
            mix[row] = request.mix
        with self._lock:
            before = self._together({row: request.before for row, request in rows.items()}, count)
            found, after = self._run({row: request.frame for row, request in rows.items()}, before, mix)
            if not self._session.keeps_states:  # a place that misses the next step still needs its own
                after = self._session.gather([(after, row) for row in range(count)])
        return [(found[row], (Row(after, row, count),)) for row in rows]

    def _run(
        self, frames: Mapping[int, NDArray[np.uint8] | ToDraw], before: States, mix: NDArray[np.float32]
    ) -> tuple[dict[int, Any], States]:
        """Steps the frames of one group by their rows; returns what comes of each, and the states after."""
        to_draw = {row: frame for row, frame in frames.items() if isinstance(frame, ToDraw)}
        if to_draw:
            assert isinstance(self._session, PictureSession)
            return self._session.step_pictures(to_draw, before, mix)
        spec = self._session.spec
        whole = np.zeros((len(mix), spec.height, spec.width, 3), np.uint8)
        for row, frame in frames.items():
            if not isinstance(frame, ToDraw):
                whole[row] = frame
        maps, after = self._session.step(whole, before, mix)
        return {row: maps[row : row + 1] for row in frames}, after

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
