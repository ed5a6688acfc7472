"""The arithmetic peak of a CPU: the rate of its multiply-add instructions on registers alone, by precision."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

from salema.benchmarks.machine.peak_kernels import Compiler
from salema.runtime.cpu import usable_cpus

_BURSTS, _FEWEST_BURSTS = 150, 10
_BURST_S = 0.002  # others on the machine leave short bursts alone more often
_LONGEST_S = _BURSTS * _BURST_S
_CLOCK_TURNS = 10_000  # 0.2 ms


@dataclass(frozen=True)
class Peaks:
    """The fastest of many bursts on all cores at once.

    A precision is missing if the CPU has no instruction for it, or a faster unit (AMX, SME).

    Attributes:
        operations_per_s: by precision, of all the cores together, two per multiplication.
        instructions: that reached it, by precision.
        clock_ghz: by precision, the highest right after a burst, by a chain of dependent additions of a cycle each.
        cores: that ran at once.
        how: the compiler.
    """

    operations_per_s: dict[str, float]
    instructions: dict[str, str]
    clock_ghz: dict[str, float]
    cores: int
    how: str


def measure_peaks(precisions: set[str], cores: int | None = None, most_s: float = _LONGEST_S) -> Peaks:
    """Measures each instruction of some precisions, with one thread on each core.

    `cores` is None for all that this process may use. Each instruction may take `most_s` seconds, where that is less
    than 150 bursts do.

    Raises:
        MissingDependencyError: llvmlite is not installed.
        BackendError: an instruction does not compute what it should.
    """
    compiler = Compiler()
    chosen = usable_cpus()[:cores]
    clock = compiler.compile_clock()
    count = max(min(_BURSTS, round(most_s / _BURST_S)), _FEWEST_BURSTS)
    rates: dict[str, float] = {}
    instructions: dict[str, str] = {}
    clocks: dict[str, float] = {}
    for kernel in compiler.kernels(precisions):
        turns_per_s, clock_ghz = _fastest(compiler.compile(kernel), clock, chosen, count)
        if kernel.operations * turns_per_s > rates.get(kernel.precision, 0):
            rates[kernel.precision] = kernel.operations * turns_per_s
            instructions[kernel.precision], clocks[kernel.precision] = kernel.name, clock_ghz
    return Peaks(rates, instructions, clocks, len(chosen), compiler.how)


def _fastest(
    run: Callable[[int], None], clock: Callable[[int], int], cores: list[int], count: int
) -> tuple[float, float]:
    """Returns the sum of the cores' turns per second, and the mean of their clocks in GHz, each the most of a burst.

    Of a burst only what the cores reached at once counts: alone, a core may run at a higher clock.
    """
    turns, spent_s = 1000, 0.0
    while spent_s < _BURST_S / 2:
        turns *= 2
        start = time.perf_counter()
        run(turns)
        spent_s = time.perf_counter() - start
    barrier = Barrier(len(cores))

    def bursts(core: int) -> list[tuple[float, float]]:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {core})  # of this thread
        return [_burst(run, clock, turns, barrier) for _ in range(count)]

    with ThreadPoolExecutor(len(cores)) as pool:
        measured = [*pool.map(bursts, cores)]
    rates, clocks = ([sum(core[i] for core in burst) for burst in zip(*measured, strict=True)] for i in range(2))
    return max(rates), max(clocks) / len(cores)


def _burst(
    run: Callable[[int], None], clock: Callable[[int], int], turns: int, barrier: Barrier
) -> tuple[float, float]:
    """Returns turns per second, and the clock in GHz right after them."""
    barrier.wait()
    start = time.perf_counter()
    run(turns)
    middle = time.perf_counter()
    cycles = clock(_CLOCK_TURNS)
    return turns / (middle - start), cycles / (time.perf_counter() - middle) / 1e9
