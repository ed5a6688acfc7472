"""Streams that share one model."""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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


class Places:
    """Gives places; their steps take turns."""

    def __init__(self, stream: SaliencyStream) -> None:
        self._stream, self._turn = stream, threading.Lock()

    def take(self) -> Place:
        """Returns a place whose state is empty."""
        return _Place(SaliencyStream(self._stream.session), self._turn)


class _Place:
    def __init__(self, stream: SaliencyStream, turn: threading.Lock) -> None:
        self._stream, self._turn = stream, turn

    def step(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._turn:
            return self._stream.step(frame)

    def reset(self) -> None:
        with self._turn:
            self._stream.reset()

    def close(self) -> None:
        pass
