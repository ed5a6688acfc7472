"""The interface of a device with one stream of asynchronous work.

`salema.kernels.device.cuda` implements it for CUDA, the tests for host memory.
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
        """Frees the memory."""


class Device(Protocol):
    """One device with one stream. Calls need `active()` around them, in the same thread."""

    name: str
    integrated: bool
    """Host and device share their memory (Jetson): mapped host buffers need no copies."""
    stream: int
    """The stream's handle, as engines take it."""

    def active(self) -> AbstractContextManager[None]:
        """Makes the device current in the calling thread."""

    def allocate(self, nbytes: int) -> Buffer:
        """Allocates device memory; its content is undefined."""

    def allocate_host(self, nbytes: int, *, mapped: bool) -> tuple[NDArray[np.uint8], int | None]:
        """Allocates page-locked host memory, freed with the array; if `mapped`, also returns its device address."""

    def upload(self, target: int, source: NDArray[np.uint8]) -> None:
        """Copies page-locked bytes to the device, in the stream's order."""

    def download(self, target: NDArray[np.uint8], source: int) -> None:
        """Copies from the device into page-locked bytes, in the stream's order."""

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copies within the device, in the stream's order."""

    def synchronize(self) -> None:
        """Waits until all work on the stream is done."""

    def capture(self, work: Callable[[], None]) -> Any:
        """Records what `work` puts on the stream as a graph, without running it; freed with the returned object."""

    def launch(self, graph: Any) -> None:
        """Puts a recorded graph on the stream."""

    def elapsed_ms(self, work: Callable[[], None]) -> float:
        """Runs what `work` puts on the stream, waits for it, and returns how long the device took."""

    def close(self) -> None:
        """Closes the device; its buffers and graphs must be freed before."""
