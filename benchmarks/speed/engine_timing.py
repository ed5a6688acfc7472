"""Times an engine alone on its device, as trtexec does: upload, compute, download and enqueue apart.

Conventions (trtexec, "Performance Metrics"): compute is the time between two events around the enqueue or the graph's
launch; latency is upload + compute + download; throughput is queries over wall time after the warm-up. One query is in
flight, because a frame needs the state after the frame before; the device's settings decide how it waits (blocking on
Jetson).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from salema.benchmarks.speed.harness import LEAST_RUNS, WARM_UP_MS, percentile
from salema.kernels.arrays import Launcher
from salema.kernels.device.interface import Buffer, Device
from salema.runtime.gpu.step_engine import StepEngine
from salema.runtime.gpu.step_io import StepTensors


@dataclass(frozen=True)
class Spread:
    """Mean, median, and percentiles as trtexec counts them, in ms."""

    mean_ms: float
    median_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, values_ms: list[float]) -> Spread:
        """Sums up a list of times."""
        ordered = sorted(values_ms)
        tail = (percentile(ordered, percent) for percent in (90, 95, 99))
        return cls(statistics.fmean(ordered), statistics.median(ordered), *tail)


@dataclass(frozen=True)
class EngineTiming:
    """What trtexec reports of an engine; `graph` says whether it was replayed as a CUDA graph."""

    throughput_qps: float
    latency: Spread
    upload: Spread
    compute: Spread
    download: Spread
    enqueue: Spread
    runs: int
    graph: bool


class _Bench:
    """An engine, with memory for each of its tensors."""

    def __init__(self, engine: StepEngine, device: Device, launcher: Launcher, streams: int) -> None:
        self._engine, self._device = engine, device
        self._tensors = StepTensors(device, launcher)
        self._states: list[Buffer] = []
        self.enqueue_ms = 0.0
        engine.set_batch(streams)
        for name, address in self._tensors.allocate(engine.spec, streams).items():
            self._tensors[name].array[:] = 0
            engine.bind(name, address)
        for state in engine.spec.states:
            nbytes = 4 * streams * math.prod(state.shape_chw)
            source = self._zeros(nbytes)
            engine.bind(f"{state.name}_in", source)
            engine.bind(f"{state.name}_out", source if engine.updates_in_place else self._zeros(nbytes))

    def _zeros(self, nbytes: int) -> int:
        buffer = self._device.allocate(nbytes)
        self._states.append(buffer)
        zeros, _ = self._device.allocate_host(nbytes, mapped=False)
        zeros[:] = 0
        self._device.upload(buffer.address, zeros)
        self._device.synchronize()
        return buffer.address

    def upload(self) -> None:
        """Enqueues the copies of the inputs."""
        for name in ("frame", "mix"):
            if name in self._tensors:
                self._tensors[name].upload()

    def download(self) -> None:
        """Enqueues the copy of the map."""
        self._tensors["saliency"].download()

    def compute(self) -> tuple[Callable[[], None], bool]:
        """Returns a function that enqueues a step and notes the host's time for it; and whether it is a graph."""
        device, engine = self._device, self._engine
        engine.enqueue(device.stream)  # TensorRT needs one run before recording
        device.synchronize()
        is_graph = engine.capturable(device.stream)
        graph = device.capture(lambda: engine.enqueue(device.stream)) if is_graph else None

        def put() -> None:
            start = time.perf_counter()
            if graph is None:
                engine.enqueue(device.stream)
            else:
                device.launch(graph)
            self.enqueue_ms = 1e3 * (time.perf_counter() - start)

        return put, is_graph

    def free(self) -> None:
        """Frees all memory."""
        self._tensors.free()
        for buffer in self._states:
            buffer.free()


def time_engine(
    engine: StepEngine, device: Device, launcher: Launcher, streams: int, duration_s: float
) -> EngineTiming:
    """Times an engine twice `duration_s` long: by parts, then in a row, with at least ten runs each.

    The device must be active. The engine's state is not changed. It is replayed as a CUDA graph if it can be
    recorded.
    """
    bench = _Bench(engine, device, launcher, streams)
    try:
        put, is_graph = bench.compute()

        def query() -> None:
            bench.upload()
            put()
            bench.download()
            device.synchronize()

        _repeat(query, WARM_UP_MS / 1e3)
        rows = []

        def apart() -> None:
            upload, compute = device.elapsed_ms(bench.upload), device.elapsed_ms(put)
            download = device.elapsed_ms(bench.download)
            rows.append((upload + compute + download, upload, compute, download, bench.enqueue_ms))

        _repeat(apart, duration_s)
        count, wall_s = _repeat(query, duration_s)
    finally:
        bench.free()
    latency, upload, compute, download, enqueue = (Spread.of(list(column)) for column in zip(*rows, strict=True))
    return EngineTiming(count / wall_s, latency, upload, compute, download, enqueue, len(rows), is_graph)


def _repeat(call: Callable[[], None], least_s: float) -> tuple[int, float]:
    """Calls until both limits are met; returns the number of calls, and the wall time in s."""
    start, count = time.perf_counter(), 0
    while count < LEAST_RUNS or time.perf_counter() - start < least_s:
        call()
        count += 1
    return count, time.perf_counter() - start
