"""What a session needs of a device: a small interface with asynchronous work on one stream.

`salema.kernels.device.cuda` is the real one. The tests have another over host memory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Buffer(Protocol):
    """Memory on the device."""

    address: int
    nbytes: int

    def free(self) -> None:
        """Gives it back."""
        ...


class Device(Protocol):
    """One device with one stream. Calls need `active()` around them, on the thread that makes them."""

    name: str
    integrated: bool
    """Host and device share their memory (Jetson): mapped host buffers need no copies."""
    stream: int
    """Handle of the stream, as engines take it."""

    def active(self) -> AbstractContextManager[None]:
        """Makes the device the calling thread's."""
        ...

    def allocate(self, nbytes: int) -> Buffer:
        """Takes device memory; its content is undefined."""
        ...

    def allocate_host(self, nbytes: int, *, mapped: bool) -> tuple[NDArray[np.uint8], int | None]:
        """Takes page-locked host memory, freed with the array; if `mapped`, also where the device sees it."""
        ...

    def upload(self, target: int, source: NDArray[np.uint8]) -> None:
        """Copies page-locked bytes to the device, in the stream's order."""
        ...

    def download(self, target: NDArray[np.uint8], source: int) -> None:
        """Copies from the device into page-locked bytes, in the stream's order."""
        ...

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copies within the device, in the stream's order."""
        ...

    def synchronize(self) -> None:
        """Waits until all work on the stream is done."""
        ...

    def capture(self, work: Callable[[], None]) -> Any:
        """Records the work that the call puts on the stream, without doing it, as a graph; freed with the object."""
        ...

    def launch(self, graph: Any) -> None:
        """Puts a recorded graph on the stream."""
        ...

    def elapsed_ms(self, work: Callable[[], None]) -> float:
        """Does what the call puts on the stream, waits for it, and returns how long the device took."""
        ...

    def close(self) -> None:
        """Gives the device back; its buffers and graphs must be gone."""
        ...
