"""A session that keeps frames, states and maps in device memory, and replays the whole step as a CUDA graph.

It uses a device and an engine by their interfaces only: TensorRT on a GPU, or anything else that reads and writes at
the addresses it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from salema.kernels.arrays import Launcher
from salema.kernels.device.interface import Buffer, Device
from salema.runtime.errors import BackendError, UsageError
from salema.runtime.gpu.left_open import close_at_exit
from salema.runtime.gpu.state_memory import DeviceStates, StateMemory
from salema.runtime.gpu.step_engine import StepEngine
from salema.runtime.gpu.step_graphs import StepGraphs
from salema.runtime.gpu.step_io import FrameJob, PictureJobs, StepTensors
from salema.runtime.postprocess import Pictures, ToDraw
from salema.runtime.session import Session, States

STATE_SCHEMES = ("ping-pong", "copy")


class DeviceSession(Session):
    """A `Session` over a `Device` and a `StepEngine`.

    A step reads its states from one piece of memory and writes them to another. The handles decide which two: a piece
    is free again once nobody holds its handle, so a stream that keeps only its newest state swaps two pieces
    ("ping-pong"). Each order of two pieces has its own graph.

    An engine that updates its states in place has one piece and one graph. With `state_scheme="copy"` there are two
    fixed pieces and one graph, which ends with a copy from one piece to the other; this is kept to measure it against
    ping-pong. In both schemes the handles of earlier steps are invalid.
    """

    def __init__(
        self,
        engine: StepEngine,
        device: Device,
        launcher: Launcher,
        runs_on: str,
        *,
        backend: str = "tensorrt",
        graphs: bool = True,
        state_scheme: str = "ping-pong",
    ) -> None:
        """Takes over the engine and the device, and closes both with the session; `launcher` runs our kernels there.

        `backend` and `runs_on` are the attributes of `Session`; the session adds to `runs_on` how its steps run.

        Raises:
            UsageError: `state_scheme` is not one of `STATE_SCHEMES`.
        """
        if state_scheme not in STATE_SCHEMES:
            raise UsageError(f"state scheme {state_scheme}: not one of {', '.join(STATE_SCHEMES)}")
        self.spec = engine.spec
        self._engine, self._device, self._launcher = engine, device, launcher
        self._memory: StateMemory | None = StateMemory(device, engine.spec)
        scheme = "in-place" if engine.updates_in_place else state_scheme
        self._fixed: dict[int, tuple[Buffer, Buffer]] | None = None if scheme == "ping-pong" else {}
        self.keeps_states = self._fixed is None
        self._streams = self._steps = 0
        self._tensors = StepTensors(device, launcher)
        self._graphs = StepGraphs(device)
        close_at_exit(self)
        with device.active():
            self._graphs.are_used = graphs and engine.capturable(device.stream)
        how = "CUDA graphs" if self._graphs.are_used else "no CUDA graphs" + ", it can't be recorded" * graphs
        self.backend, self.device = backend, device.name
        self.runs_on = f"{runs_on}, {how}, {scheme} states" + f", {engine.note}" * bool(engine.note)

    def __del__(self) -> None:
        """Closes a session that was dropped open: engine and memory must be freed while the device is active."""
        if self.__dict__.get("_memory") is not None:  # else it was never opened
            with suppress(BackendError):
                self.close()

    def step(
        self, frames: NDArray[np.uint8], states: States, mix: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], States]:
        """See `Session.step`.

        Raises:
            UsageError: the frames have another shape, the states are another session's, or their numbers differ.
            BackendError: the device failed.
        """
        before = self._checked(states)
        expected = (before.streams or len(frames), self.spec.height, self.spec.width, 3)
        if frames.shape != expected:  # checked first, because another batch drops the graphs
            raise UsageError(f"frames {frames.shape} given, {expected} expected")
        with self._device.active():
            self._set_batch(len(frames))
            self._tensors["frame"].array[:] = frames
            after = self._step(before, mix, FrameJob(self._tensors))
            maps = self._tensors["saliency"].array[:, 0].copy()
        return maps, (after,)

    def step_pictures(
        self, to_draw: Mapping[int, ToDraw], states: States, mix: NDArray[np.float32]
    ) -> tuple[dict[int, Pictures], States]:
        """See `PictureSession.step_pictures`; all of it is one graph.

        Raises:
            UsageError: the states are not this session's, or of another number of streams.
            BackendError: the device failed.
        """
        before = self._checked(states)
        if before.streams not in {len(mix), 0}:
            raise UsageError(f"pictures of {len(mix)} streams asked for, and these states are of {before.streams}")
        with self._device.active():
            self._set_batch(len(mix))
            job = self._tensors.pictures(to_draw, self._graphs.forget)
            after = self._step(before, mix, job)
            return job.results(to_draw), (after,)

    def check_streams(self, streams: int) -> None:
        """See `Session.check_streams`."""
        least, most = self._engine.batch_range
        if not least <= streams <= most:
            raise UsageError(
                f"{streams} streams: the engine was built for {least} to {most}; build it again with"
                f" --batch-profile {min(least, streams)} {streams} {max(most, streams)}"
            )

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
            del staging, views  # freed here, because only the thread that opened the device can free page-locked memory
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

    def gather(self, rows: Sequence[tuple[States, int]]) -> States:
        """See `Session.gather`.

        Raises:
            UsageError: states are not this session's.
        """
        memory = self._open_memory()
        handles = [(self._checked(states), row) for states, row in rows]
        streams = len(rows) if self.spec.states else 0
        with self._device.active():
            after = memory.lend(memory.take(streams), streams, self._steps)
            for place, (before, row) in enumerate(handles):
                memory.copy_stream(after, place, before, row)
        return (after,)

    def close(self) -> None:
        """See `Session.close`."""
        if not self.is_open:
            return
        with self._device.active():
            self._graphs.forget()
            self._tensors.free()
            self._open_memory().close()
            self._engine.close()
            self._launcher.close()
        self._memory = None
        self._device.close()
        super().close()

    def _open_memory(self) -> StateMemory:
        self.check_open()
        assert self._memory is not None
        return self._memory

    def _checked(self, states: States) -> DeviceStates:
        """Returns the handle of the states, after a check that it is this session's and still valid."""
        memory = self._open_memory()
        handle = states[0] if len(states) == 1 else None
        if not isinstance(handle, DeviceStates) or handle not in memory:
            raise UsageError("these states are another session's; take them over with to_host and from_host")
        fixed = self._fixed.get(handle.streams) if self._fixed else None
        if fixed is not None and handle.buffer is fixed[0] and handle.step != self._steps:
            raise UsageError("this model keeps the states of the last step only; use to_host to keep earlier ones")
        return handle

    def _step(self, before: DeviceStates, mix: NDArray[np.float32], job: FrameJob | PictureJobs) -> DeviceStates:
        """Runs the step, waits for it, and returns the states after it."""
        memory = self._open_memory()
        if "mix" in self._tensors:
            self._tensors["mix"].array[:] = mix
        source, target = self._place(before)
        # Lent before the run, so that a step that fails gives its memory back.
        give, after = (memory.lend, target) if self._fixed is None else (memory.view, source)
        # Counted before the run: with fixed memory, earlier handles are invalid even if the step fails.
        self._steps += 1
        handle = give(after, before.streams, self._steps)
        self._run(source, target, job)
        self._device.synchronize()
        return handle

    def _place(self, before: DeviceStates) -> tuple[Buffer, Buffer]:
        """Returns the memory that the step reads its states from, and the memory that it writes them to."""
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

    def _run(self, source: Buffer, target: Buffer, job: FrameJob | PictureJobs) -> None:
        def bind() -> None:
            for name, offset in self._open_memory().offsets(self._streams).items():
                self._engine.bind(f"{name}_in", source.address + offset)
                self._engine.bind(f"{name}_out", target.address + offset)

        self._graphs.run((source.address, target.address, job.key), bind, lambda: self._work(source, target, job))

    def _work(self, source: Buffer, target: Buffer, job: FrameJob | PictureJobs) -> None:
        """Enqueues one whole step. A graph records this."""
        if "mix" in self._tensors:
            self._tensors["mix"].upload()
        job.before()
        self._engine.enqueue(self._device.stream)
        job.after()
        if source is not target and self._fixed is not None and source.nbytes:
            self._device.copy(source.address, target.address, source.nbytes)

    def _set_batch(self, streams: int) -> None:
        """Prepares for a number of streams. Another number drops the graphs, which were recorded for the old one."""
        if streams == self._streams:
            return
        self.check_streams(streams)
        self._streams = 0  # in case something below fails
        self._graphs.forget()
        self._tensors.free()
        self._engine.set_batch(streams)
        for name, address in self._tensors.allocate(self.spec, streams).items():
            self._engine.bind(name, address)
        self._streams = streams
