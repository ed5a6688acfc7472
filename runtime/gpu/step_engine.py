"""What a device session needs of a network: one time step over tensors at device addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from salema.runtime.spec import ModelSpec


class StepEngine(Protocol):
    """One time step over tensors at device addresses. Calls need the device's `active()` around them."""

    spec: ModelSpec
    batch_range: tuple[int, int]
    """Least and greatest number of streams."""
    updates_in_place: bool
    """Whether `<state>_in` and `<state>_out` must be the same memory."""

    def set_batch(self, streams: int) -> None:
        """Sets the number of streams of the steps to come."""
        ...

    def bind(self, name: str, address: int) -> None:
        """Says where a tensor lies, for the steps to come."""
        ...

    def enqueue(self, stream: int) -> None:
        """Puts one step on a stream."""
        ...

    def capturable(self, stream: int) -> bool:
        """Whether `enqueue` can be recorded in a graph."""
        ...

    def close(self) -> None:
        """Frees the engine."""
        ...
