"""A session whose frames, states and maps stay in device memory, with the whole step replayed as a CUDA graph.

It knows a device and an engine by their interfaces only: TensorRT on a GPU, or anything else that reads and writes at
the addresses it is given.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from salema.runtime.errors import UsageError
from salema.runtime.state_memory import DeviceStates, StateMemory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from typing_extensions import Self

    from salema.kernels.device import Buffer, Device
    from salema.runtime.session import States
    from salema.runtime.spec import ModelSpec

STATE_SCHEMES = ("ping-pong", "copy")
_MOST_GRAPHS = 8


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


class _Tensor:
    """A tensor that crosses to the host: page-locked memory with device memory beside it, or mapped and both in one."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        self.bytes, address = device.allocate_host(nbytes, mapped=device.integrated)
        self.array: NDArray[Any] = self.bytes.view(dtype).reshape(shape)
        self._buffer = device.allocate(nbytes) if address is None else None
        self.is_copied = self._buffer is not None
        self.address = (address or 0) if self._buffer is None else self._buffer.address

    def free(self) -> None:
        if self._buffer is not None:
            self._buffer.free()


class DeviceSession:
    """A `Session` over a `Device` and a `StepEngine`.

    The states of a step come in one piece of memory and go out in another. Which two, the handles decide: a piece is
    free again once nobody holds its handle, so a stream that carries its state along swaps two pieces ("ping-pong").
    Each order of two pieces has its own graph. The first step in an order runs plainly, and counts: it is the warm-up
    that TensorRT wants before recording, so no run that doesn't count ever touches a state.

    An engine that updates its states in place has one piece and one graph. With `state_scheme="copy"` there are two
    fixed pieces and one graph, which ends with a copy from one to the other; that is there to be measured against
    ping-pong. In both, handles of earlier steps are worthless.
    """

    def __init__(
        self,
        engine: StepEngine,
        device: Device,
        description: str,
        *,
        graphs: bool = True,
        state_scheme: str = "ping-pong",
    ) -> None:
        """Takes over the engine and the device, and closes both with the session.

        Raises:
            UsageError: there is no such scheme.
        """
        if state_scheme not in STATE_SCHEMES:
            raise UsageError(f"state scheme {state_scheme}: not one of {', '.join(STATE_SCHEMES)}")
        self.spec = engine.spec
        self._engine, self._device = engine, device
        self._memory: StateMemory | None = StateMemory(device, engine.spec)
        scheme = "in-place" if engine.updates_in_place else state_scheme
        self._fixed: dict[int, tuple[Buffer, Buffer]] | None = None if scheme == "ping-pong" else {}
        self._streams = self._steps = 0
        self._tensors: dict[str, _Tensor] = {}
        self._warm: set[tuple[int, int]] = set()
        self._recorded: dict[tuple[int, int], Any] = {}
        with device.active():
            self._graphs = graphs and engine.capturable(device.stream)
        how = "CUDA graphs" if self._graphs else "no CUDA graphs" + (", it can't be recorded" if graphs else "")
        self.description = f"{description}, {how}, {scheme} states"

    @property
    def graphs_recorded(self) -> int:
        """How many graphs are there: one for each order of the state's memory."""
        return len(self._recorded)

    def step(
        self, frames: NDArray[np.uint8], states: States, mix: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], States]:
        """See `Session.step`.

        Raises:
            UsageError: frames or states are not this session's, or not as many as one another.
            BackendError: the device failed.
        """
        before = self._checked(states)
        memory = self._open_memory()
        with self._device.active():
            self._set_batch(len(frames))
            shape = self._tensors["frame"].array.shape
            if frames.shape != shape or before.streams not in {self._streams, 0}:
                raise UsageError(f"frames {frames.shape} given, {(before.streams, *shape[1:])} expected")
            self._tensors["frame"].array[:] = frames
            if "mix" in self._tensors:
                self._tensors["mix"].array[:] = mix
            source, target = self._place(before)
            # Lent before the run, so that a step that fails gives its memory back.
            give, after = (memory.lend, target) if self._fixed is None else (memory.view, source)
            handle = give(after, before.streams, self._steps + 1)
            self._run(source, target)
            self._device.synchronize()
            maps = self._tensors["saliency"].array[:, 0].copy()
        self._steps += 1
        return maps, (handle,)

    def from_host(self, arrays: Mapping[str, NDArray[np.float32]]) -> States:
        """See `Session.from_host`."""
        memory = self._open_memory()
        streams = len(arrays[self.spec.states[0].name]) if self.spec.states else 0
        with self._device.active():
            staging, _ = self._device.allocate_host(memory.nbytes(streams), mapped=False)
            views = memory.views(staging, streams)
            for name in views:
                views[name][:] = arrays[name]
            handle = memory.lend(memory.take(streams), streams, self._steps)
            if staging.nbytes:
                self._device.upload(handle.buffer.address, staging)
                self._device.synchronize()
            del staging, views  # page-locked memory can't be freed later on a thread other than the one that opened
        return (handle,)

    def to_host(self, states: States) -> dict[str, NDArray[np.float32]]:
        """See `Session.to_host`.

        Raises:
            UsageError: the states are not this session's.
        """
        handle = self._checked(states)
        memory = self._open_memory()
        with self._device.active():
            staging, _ = self._device.allocate_host(memory.nbytes(handle.streams), mapped=False)
            if staging.nbytes:
                self._device.download(staging, handle.buffer.address)
                self._device.synchronize()
            arrays = {name: view.copy() for name, view in memory.views(staging, handle.streams).items()}
            del staging  # see from_host
        return arrays

    def close(self) -> None:
        """See `Session.close`."""
        if self._memory is None:
            return
        with self._device.active():
            self._recorded.clear()
            self._free_tensors()
            self._memory.close()
            self._engine.close()
        self._memory = None
        self._device.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_memory(self) -> StateMemory:
        if self._memory is None:
            raise UsageError("the model is closed; load it again")
        return self._memory

    def _checked(self, states: States) -> DeviceStates:
        """Returns the handle of states that are this session's and still there."""
        memory = self._open_memory()
        handle = states[0] if len(states) == 1 else None
        if not isinstance(handle, DeviceStates) or handle not in memory:
            raise UsageError("these states are another session's; take them over with to_host and from_host")
        fixed = self._fixed.get(handle.streams) if self._fixed else None
        if fixed is not None and handle.buffer is fixed[0] and handle.step != self._steps:
            raise UsageError("this model keeps the states of the last step only; use to_host to keep earlier ones")
        return handle

    def _place(self, before: DeviceStates) -> tuple[Buffer, Buffer]:
        """Returns the memory that the step reads its states from, and that it writes them to."""
        memory = self._open_memory()
        if self._fixed is None:
            return before.buffer, memory.take(before.streams)
        if before.streams not in self._fixed:
            first = memory.take(before.streams)
            second = first if self._engine.updates_in_place else memory.take(before.streams)
            self._fixed[before.streams] = (first, second)
        source, target = self._fixed[before.streams]
        if before.buffer is not source and source.nbytes:
            self._device.copy(source.address, before.buffer.address, source.nbytes)
        return source, target

    def _run(self, source: Buffer, target: Buffer) -> None:
        order = (source.address, target.address)
        if order not in self._recorded:
            for name, offset in self._open_memory().offsets(self._streams).items():
                self._engine.bind(f"{name}_in", source.address + offset)
                self._engine.bind(f"{name}_out", target.address + offset)
            if not (self._graphs and order in self._warm):
                self._work(source, target)
                self._warm.add(order)
                return
            if len(self._recorded) == _MOST_GRAPHS:
                del self._recorded[next(iter(self._recorded))]
            self._recorded[order] = self._device.capture(lambda: self._work(source, target))
        self._device.launch(self._recorded[order])

    def _work(self, source: Buffer, target: Buffer) -> None:
        """Puts one whole step on the stream: what a graph records."""
        device, tensors = self._device, self._tensors
        for name in ("frame", "mix"):
            if name in tensors and tensors[name].is_copied:
                device.upload(tensors[name].address, tensors[name].bytes)
        self._engine.enqueue(device.stream)
        if tensors["saliency"].is_copied:
            device.download(tensors["saliency"].bytes, tensors["saliency"].address)
        if source is not target and self._fixed is not None and source.nbytes:
            device.copy(source.address, target.address, source.nbytes)

    def _set_batch(self, streams: int) -> None:
        """Makes ready for so many streams. Graphs hold the sizes they were recorded with, so they go."""
        if streams == self._streams:
            return
        least, most = self._engine.batch_range
        if not least <= streams <= most:
            raise UsageError(
                f"{streams} streams: the engine was built for {least} to {most}; build it again with"
                f" --batch-profile {min(least, streams)} {streams} {max(most, streams)}"
            )
        self._streams = 0  # until all is done
        self._recorded.clear()
        self._warm.clear()
        self._free_tensors()
        self._engine.set_batch(streams)
        for name, (_, *rest) in self.spec.tensor_shapes.items():
            if name in {"frame", "mix", "saliency"}:
                shape = (streams, *(n or 0 for n in rest))
                tensor = _Tensor(self._device, shape, np.uint8 if name == "frame" else np.float32)
                self._tensors[name] = tensor
                self._engine.bind(name, tensor.address)
        self._streams = streams

    def _free_tensors(self) -> None:
        for tensor in self._tensors.values():
            tensor.free()
        self._tensors.clear()
