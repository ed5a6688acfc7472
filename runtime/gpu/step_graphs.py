"""CUDA graphs of a step: recorded when a step comes again, then replayed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from salema.kernels.device.interface import Device

_MOST_GRAPHS = 8


class StepGraphs:
    """Runs work on a device, one graph for each key. Calls need the device's `active()` around them.

    The first time a key comes, its work runs without a graph. That is the warm-up that TensorRT needs before recording,
    and its result is used like any other, so that no extra run touches a state.

    Attributes:
        are_used: whether graphs are recorded at all.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.are_used = False
        self._warm: set[Hashable] = set()
        self._recorded: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self._recorded)

    def run(self, key: Hashable, bind: Callable[[], None], work: Callable[[], None]) -> None:
        """Enqueues the work; `bind` is called first if it is not replayed."""
        if key not in self._recorded:
            bind()
            if not (self.are_used and key in self._warm):
                work()
                self._warm.add(key)
                return
            if len(self._recorded) == _MOST_GRAPHS:
                del self._recorded[next(iter(self._recorded))]
            self._recorded[key] = self._device.capture(work)
        self._device.launch(self._recorded[key])

    def forget(self) -> None:
        """Drops all graphs; must be called before what they use is freed."""
        self._warm.clear()
        self._recorded.clear()
