"""The interface of a network that a device session runs."""

from __future__ import annotations

from typing import Protocol

from salema.runtime.spec import ModelSpec


class StepEngine(Protocol):
    """One time step over tensors at device addresses. Calls need the device's `active()` around them."""

    spec: ModelSpec
    batch_range: tuple[int, int]
    """Least and greatest number of streams."""
    updates_in_place: bool
    """Whether `<state>_in` and `<state>_out` must be the same memory."""

    note: str
    """What to tell of how it runs; empty if nothing."""

    def set_batch(self, streams: int) -> None:
        """Sets the number of streams for all later steps."""

    def bind(self, name: str, address: int) -> None:
        """Sets the device address of a tensor for all later steps."""

    def enqueue(self, stream: int) -> None:
        """Enqueues one step on a CUDA stream."""

    def capturable(self, stream: int) -> bool:
        """Returns whether a graph can record `enqueue`."""

    def close(self) -> None:
        """Frees the engine."""
