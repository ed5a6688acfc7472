"""Device memory for the states: each piece holds all states of N streams, and is in use while its handle lives."""

from __future__ import annotations

import math
import weakref

import numpy as np
from numpy.typing import NDArray

from salema.kernels.device.interface import Buffer, Device
from salema.runtime.spec import ModelSpec

_ALIGNMENT_BYTES = 256  # TensorRT needs this


class DeviceStates:
    """A handle on the states of N streams after one step; their memory is free once nobody holds the handle."""

    def __init__(self, buffer: Buffer, streams: int, step: int) -> None:
        self.buffer = buffer
        self.streams = streams
        self.step = step


class StateMemory:
    """Gives out pieces of device memory and takes them back. Calls need the device's `active()` around them."""

    def __init__(self, device: Device, spec: ModelSpec) -> None:
        self._device = device
        self._states = spec.states
        self._free: dict[int, list[Buffer]] = {}  # pieces that nobody holds, by number of streams
        self._all: list[Buffer] = []
        self._live: weakref.WeakSet[DeviceStates] = weakref.WeakSet()

    def __contains__(self, handle: object) -> bool:
        return handle in self._live

    def take(self, streams: int) -> Buffer:
        """Returns a piece that nobody holds; its content is undefined."""
        free = self._free.setdefault(streams, [])
        if not free:
            free.append(self._device.allocate(self.nbytes(streams)))
            self._all.append(free[-1])
        return free.pop()

    def lend(self, buffer: Buffer, streams: int, step: int) -> DeviceStates:
        """Returns a handle on a piece that `take` gave; when it dies, the piece is free."""
        handle = self.view(buffer, streams, step)
        weakref.finalize(handle, self._free[streams].append, buffer).atexit = False
        return handle

    def view(self, buffer: Buffer, streams: int, step: int) -> DeviceStates:
        """Returns a handle on a piece that stays taken."""
        handle = DeviceStates(buffer, streams, step)
        self._live.add(handle)
        return handle

    def close(self) -> None:
        """Frees all pieces; handles that are still held become invalid."""
        self._live.clear()
        self._free.clear()
        for buffer in self._all:
            buffer.free()
        self._all.clear()

    def copy_stream(self, target: DeviceStates, place: int, source: DeviceStates, row: int) -> None:
        """Enqueues a copy of one stream's states, from `row` of `source` to `place` of `target`."""
        starts, ends = self.offsets(source.streams), self.offsets(target.streams)
        for state in self._states:
            nbytes = _nbytes(state.shape_chw)
            start = source.buffer.address + starts[state.name] + row * nbytes
            self._device.copy(target.buffer.address + ends[state.name] + place * nbytes, start, nbytes)

    def nbytes(self, streams: int) -> int:
        """Returns the size of a piece in bytes."""
        return sum(_aligned_bytes((streams, *state.shape_chw)) for state in self._states)

    def offsets(self, streams: int) -> dict[str, int]:
        """Returns where each state begins in a piece, in bytes."""
        offsets, end = {}, 0
        for state in self._states:
            offsets[state.name] = end
            end += _aligned_bytes((streams, *state.shape_chw))
        return offsets

    def views(self, memory: NDArray[np.uint8], streams: int) -> dict[str, NDArray[np.float32]]:
        """Returns the states in a host copy of a piece, `{name: [N, C, H, W]}`: views of `memory`."""
        views = {}
        for state, start in zip(self._states, self.offsets(streams).values(), strict=True):
            shape = (streams, *state.shape_chw)
            views[state.name] = memory[start : start + _nbytes(shape)].view(np.float32).reshape(shape)
        return views


def _nbytes(shape: tuple[int, ...]) -> int:
    return math.prod(shape) * np.dtype(np.float32).itemsize


def _aligned_bytes(shape: tuple[int, ...]) -> int:
    return -(-_nbytes(shape) // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
