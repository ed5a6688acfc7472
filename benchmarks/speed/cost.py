"""Cost against work: time and memory against frame size, batch and length of a video.

Each point runs in its own process, which makes the peak of memory its own.
"""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from salema.benchmarks.machine.environment import describe_environment
from salema.benchmarks.machine.memory import peak_mb
from salema.benchmarks.plotting import new_figure, save_figure
from salema.benchmarks.speed.harness import time_ms
from salema.benchmarks.speed.records import SCHEMA
from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.errors import BackendError
from salema.runtime.wording import listed

SIZES_HW = ((96, 128), (144, 192), (192, 256), (288, 384), (384, 512), (720, 1280))
BATCHES = (1, 2, 4, 8, 16)
LENGTHS = (10, 30, 100, 300)
USUAL_HW = (192, 256)
AXES = {"size": "pixels per frame", "batch": "streams per step", "length": "frames of the video"}
_QUANTITIES = {"step_ms": "ms per step", "total_s": "s in all", "peak_mb": "peak memory, MB"}
_RUNS, _WARM_UP = 7, 2


@dataclass(frozen=True)
class Point:
    """One measurement on one of `AXES`; otherwise of 192x256, one stream, `_RUNS` steps.

    `step_ms` is the median, `total_s` of all steps after the warm-up. `peak_mb` is the process's peak memory, in MB of
    10**6 bytes, libraries included.
    """

    axis: str
    value: int
    label: str
    step_ms: float
    total_s: float
    peak_mb: float


@dataclass(frozen=True)
class Line:
    """A straight line through the points of an axis: `fixed + each * value`, and its R squared."""

    axis: str
    quantity: str
    fixed: float
    each: float
    r_squared: float


def measure_cost(
    export: Callable[[tuple[int, int]], Path], backend: str, say: Callable[[str], None]
) -> Iterator[Point]:
    """Measures all three axes on the CPU, and yields each point as it is known.

    `export` returns the folder of a model for frames of a size `(H, W)`, with a free batch. `say` takes a line for each
    point.

    Raises:
        SalemaError: the model can't be exported or run; where memory does not suffice, after the other points.
    """
    usual = export(USUAL_HW)
    jobs = [("size", h * w, f"{h}x{w}", usual if (h, w) == USUAL_HW else export((h, w)), 1, _RUNS) for h, w in SIZES_HW]
    jobs += [("batch", batch, str(batch), usual, batch, _RUNS) for batch in BATCHES]
    jobs += [("length", length, str(length), usual, 1, length) for length in LENGTHS]
    killed = []
    for axis, value, label, folder, batch, frames in jobs:
        measured = _in_own_process(folder, backend, batch, frames)
        if measured is None:
            killed.append(f"{axis} {label}")
            say(f"{axis} {label}: its process was killed")
            continue
        point = Point(axis, value, label, *measured)
        say(f"{axis} {label}: {point.step_ms:.1f} ms, {point.peak_mb:.0f} MB")
        yield point
    if killed:
        raise BackendError(
            f"{listed(killed)}: the process was killed, most likely for want of memory; use a machine with more"
        )


def _in_own_process(folder: Path, backend: str, batch: int, frames: int) -> tuple[float, float, float] | None:
    """Returns what `run_steps` does; None if the process was killed."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(run_steps, folder, backend, batch, frames).result()
        except BrokenProcessPool:
            return None


def run_steps(folder: Path, backend: str, batch: int, frames: int) -> tuple[float, float, float]:
    """Runs `frames` steps in this process; returns the median in ms, the sum in s, and the peak memory in MB."""
    with load(folder, backend=backend, device="cpu", streams=batch) as stream:
        video = np.repeat(moving_disc(4, stream.spec.height, stream.spec.width)[:, np.newaxis], batch, 1)
        for index in range(_WARM_UP):
            stream.infer(video[index])
        times = [time_ms(partial(stream.infer, video[index % len(video)])) for index in range(frames)]
    return statistics.median(times), sum(times) / 1e3, peak_mb()


def fit_lines(points: Sequence[Point]) -> list[Line]:
    """Fits lines by least squares: to the time of a step, or of a whole video against its length, and to memory.

    An axis with fewer than two points has none.
    """
    lines = []
    for axis in AXES:
        chosen = [point for point in points if point.axis == axis]
        if len(chosen) < 2:  # noqa: PLR2004 - a line's
            continue
        quantity = "total_s" if axis == "length" else "step_ms"
        for name in (quantity, "peak_mb"):
            x = np.array([point.value for point in chosen], np.float64)
            y = np.array([getattr(point, name) for point in chosen], np.float64)
            each, fixed = np.polyfit(x, y, 1)
            rest, all_of_it = ((y - fixed - each * x) ** 2).sum(), ((y - y.mean()) ** 2).sum()
            lines.append(Line(axis, name, float(fixed), float(each), float(1 - rest / all_of_it) if all_of_it else 1.0))
    return lines


def cost_record(points: Sequence[Point], backend: str, weights: str) -> dict[str, Any]:
    """Returns a run's record, ready for JSON."""
    return {
        "schema": SCHEMA,
        "kind": "cost",
        "cost": [asdict(point) for point in points],
        "lines": [asdict(line) for line in fit_lines(points)],
        "backend": backend,
        "weights": weights,
        "environment": describe_environment(),
    }


def cost_table(points: Sequence[Point], lines: Sequence[Line]) -> str:
    """Returns the points as a Markdown table, with the fitted lines below it."""
    rows = ["| varied | value | ms per step | s in all | peak MB |", "| --- | --- | --- | --- | --- |"]
    rows += [
        f"| {AXES[point.axis]} | {point.label} | {point.step_ms:.1f} | {point.total_s:.2f} | {point.peak_mb:.0f} |"
        for point in points
    ]
    units = {"step_ms": "ms", "total_s": "s", "peak_mb": "MB"}
    rows += ["", *(_sentence(line, units[line.quantity]) for line in lines)]
    return "\n".join(rows)


def _sentence(line: Line, unit: str) -> str:
    return (
        f"- {line.quantity} = {line.fixed:.4g} {unit} + {line.each:.4g} {unit} x {AXES[line.axis]}"
        f" (R squared {line.r_squared:.4f})"
    )


def plot_cost(points: Sequence[Point], lines: Sequence[Line], path: Path) -> None:
    """Draws time above, memory below, with the lines through them.

    Raises:
        OutputError: the file can't be written.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415 - in the extra `plot`

    figure = new_figure(12, 7)
    panels = figure.subplots(2, len(AXES))
    for index, line in enumerate(lines):
        chosen = [point for point in points if point.axis == line.axis]
        x = [point.value for point in chosen]
        axes = panels[index % 2][index // 2]
        axes.plot(x, [getattr(point, line.quantity) for point in chosen], "o")
        ends = np.array([0, max(x)])
        axes.plot(ends, line.fixed + line.each * ends, label=f"R squared {line.r_squared:.4f}")
        most = max(*(getattr(point, line.quantity) for point in chosen), line.fixed + line.each * max(x), line.fixed)
        axes.set(xlabel=AXES[line.axis], ylabel=_QUANTITIES[line.quantity], ylim=(0, most * 1.15))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))  # more of such long numbers would overlap
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}".replace(",", " ")))
        axes.legend()
    save_figure(figure, path)
