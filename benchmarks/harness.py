"""Times what is compared in turns, so that a noisy machine is noisy for all, and reports ratios."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class Timing:
    """Times of one case in ms: median, mean, percentiles as trtexec counts them, and how many there were.

    `ratio` is the median over the rounds of the baseline's time over this one's: above 1 is faster. `ratio_spread` is
    the distance between its quartiles.
    """

    median_ms: float
    mean_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    runs: int
    ratio: float
    ratio_spread: float


def percentile(sorted_ms: Sequence[float], percent: float) -> float:
    """Returns a percentile as trtexec does: `sorted[max(n - 1 - int((100 - p) * n / 100), 0)]`."""
    count = len(sorted_ms)
    return sorted_ms[max(count - 1 - int((100 - percent) * count / 100), 0)]


def compare(
    cases: Mapping[str, Callable[[], object]],
    baseline: str,
    rounds: int,
    inner: int = 1,
    warm_up: int = 3,
    clock: Callable[[], float] | None = None,
) -> dict[str, Timing]:
    """Times every case in each round, one after the other.

    Args:
        cases: what to time, by name; each call must return only when its work is done.
        baseline: the case that ratios are against.
        rounds: how often each is timed.
        inner: calls in a row per time, of which each counts as one run.
        warm_up: calls before the first time.
        clock: gives seconds; None takes the wall's, `time.process_time` suits work on one core of a busy machine.
    """
    clock = clock or time.perf_counter
    for call in cases.values():
        for _ in range(warm_up):
            call()
    times: dict[str, list[list[float]]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, call in cases.items():
            times[name].append([_time_ms(call, clock) for _ in range(inner)])
    base = [statistics.median(row) for row in times[baseline]]
    return {name: _summarise(rows, base) for name, rows in times.items()}


def _time_ms(call: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return (clock() - start) * 1e3


def _summarise(rows: list[list[float]], base: list[float]) -> Timing:
    runs = sorted(ms for row in rows for ms in row)
    ratios = sorted(reference / statistics.median(row) for reference, row in zip(base, rows, strict=True))
    quarter = len(ratios) // 4
    return Timing(
        median_ms=statistics.median(runs),
        mean_ms=statistics.fmean(runs),
        p90_ms=percentile(runs, 90),
        p95_ms=percentile(runs, 95),
        p99_ms=percentile(runs, 99),
        runs=len(runs),
        ratio=statistics.median(ratios),
        ratio_spread=ratios[-1 - quarter] - ratios[quarter],
    )
