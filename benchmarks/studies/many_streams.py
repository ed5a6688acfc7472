"""Frames per second and waits of several videos at a time: on one model in one batch, and on a model each.

`python -m salema.benchmarks.studies.many_streams DIR BACKEND... FILE.json`; DIR is a model exported with
`--batch dynamic`. Videos are frames in memory, so that only steps are timed. All cases of a backend take turns, and
each turn's rates are set against the rate of one video alone in the same turn.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier

import numpy as np

from salema.benchmarks.studies.common import write_by_cpu
from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.batching.stream_batch import StreamBatch
from salema.runtime.cpu import threads_each
from salema.runtime.stream import SaliencyStream

ROUNDS, SECONDS, WARM_UP = 12, 0.3, 3
COUNTS = (2, 4)
ALONE = "one video alone"


@dataclass
class Case:
    """What a case of so many videos at a time did in each turn: frames per second of all, CPU ms per frame, and waits.

    CPU time is on all cores; other programs hardly change it. `step_ms` is how long each step's caller waited for its
    map.
    """

    streams: int
    fps: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)


def measure(model: Path, backend: str, rounds: int = ROUNDS, seconds: float = SECONDS) -> dict[str, Case]:
    """Runs every case in turns; returns them by name."""
    with ExitStack() as opened:
        streams = {name: opened.enter_context(opening) for name, opening in _openings(model, backend)}
        cases = {name: Case(len(its)) for name, its in streams.items()}
        for its in streams.values():
            _run(its, 0.0)
        for _ in range(rounds):
            for name, its in streams.items():
                fps, cpu_ms, step_ms = _run(its, seconds)
                cases[name].fps.append(fps)
                cases[name].cpu_ms.append(cpu_ms)
                cases[name].step_ms += step_ms
    return cases


_Opening = AbstractContextManager[list[SaliencyStream]]


def _openings(model: Path, backend: str) -> Iterator[tuple[str, _Opening]]:
    yield ALONE, _on_a_model_each(model, backend, 1)
    for count in COUNTS:
        yield f"{count}, a model each", _on_a_model_each(model, backend, count)
        yield f"{count}, in a batch", _in_a_batch(model, backend, count)


@contextmanager
def _on_a_model_each(model: Path, backend: str, count: int) -> Iterator[list[SaliencyStream]]:
    threads = threads_each(None, count)  # as `salema-run --jobs` divides the cores
    with ExitStack() as opened:
        yield [opened.enter_context(load(model, backend=backend, device="cpu", threads=threads)) for _ in range(count)]


@contextmanager
def _in_a_batch(model: Path, backend: str, count: int) -> Iterator[list[SaliencyStream]]:
    with StreamBatch(load(model, backend=backend, device="cpu", streams=count)) as batch, ExitStack() as opened:
        places = [batch.take_place() for _ in range(count)]
        yield [opened.enter_context(place) for place in places if place is not None]


def _run(streams: list[SaliencyStream], seconds: float) -> tuple[float, float, list[float]]:
    """Steps each video in a thread of its own; returns frames per second in all, CPU ms per frame, and each step's ms.

    The first steps of each video don't count.
    """
    spec = streams[0].spec
    frames = moving_disc(WARM_UP, spec.height, spec.width)
    starts_cpu_s: list[float] = []
    is_warm = Barrier(len(streams), lambda: starts_cpu_s.append(time.process_time()))

    def video(stream: SaliencyStream) -> tuple[float, list[float]]:
        for frame in frames:
            stream.step(frame)
        is_warm.wait()
        times_ms, start_s = list[float](), time.perf_counter()
        while not times_ms or time.perf_counter() - start_s < seconds:
            before_s = time.perf_counter()
            stream.step(frames[len(times_ms) % WARM_UP])
            times_ms.append(1e3 * (time.perf_counter() - before_s))
        return len(times_ms) / (time.perf_counter() - start_s), times_ms

    with ThreadPoolExecutor(len(streams)) as pool:
        results = list(pool.map(video, streams))
    step_ms = [ms for _, times_ms in results for ms in times_ms]
    cpu_ms = 1e3 * (time.process_time() - starts_cpu_s[0]) / len(step_ms)
    return sum(fps for fps, _ in results), cpu_ms, step_ms


def compared(cases: dict[str, Case]) -> dict[str, dict[str, float]]:
    """Sums up each case: medians over the turns, and their ratios to one video alone in the same turn."""
    alone, alone_cpu = cases[ALONE].fps, cases[ALONE].cpu_ms
    summed = {}
    for name, case in cases.items():
        ratios = [fps / base for fps, base in zip(case.fps, alone, strict=True)]
        low, median, high = np.percentile(ratios, (25, 50, 75))
        p50, p99 = np.percentile(case.step_ms, (50, 99))
        numbers = {"fps": statistics.median(case.fps), "ratio": median, "ratio_low": low, "ratio_high": high}
        numbers["cpu_ms"] = statistics.median(case.cpu_ms)
        numbers["cpu_ratio"] = statistics.median(ms / base for ms, base in zip(case.cpu_ms, alone_cpu, strict=True))
        summed[name] = {key: float(value) for key, value in (numbers | {"p50_ms": p50, "p99_ms": p99}).items()}
    return summed


def main() -> None:
    """Measures, prints and writes JSON."""
    model, *backends = sys.argv[1:-1]
    found = {}
    for backend in backends:
        found[backend] = compared(measure(Path(model), backend))
        for name, case in found[backend].items():
            rate = f"{case['fps']:.1f} fps, {case['ratio']:.2f} x ({case['ratio_low']:.2f} to {case['ratio_high']:.2f})"
            cpu = f"{case['cpu_ms']:.1f} ms of CPU a frame, {case['cpu_ratio']:.2f} x"
            print(f"{backend}, {name}: {rate}, {cpu}, step {case['p50_ms']:.1f} ms, p99 {case['p99_ms']:.1f} ms")
    with load(model, backend=backends[0], device="cpu", streams=1) as stream:
        facts = {"weights": stream.spec.weights, "precision": stream.spec.precision, "height": stream.spec.height}
        facts["width"] = stream.spec.width
    write_by_cpu({"rounds": ROUNDS, "seconds": SECONDS, "model": facts, "backends": found})


if __name__ == "__main__":
    main()
