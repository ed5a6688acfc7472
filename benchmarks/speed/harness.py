"""Times cases in turns, so that a noisy machine is noisy for all of them, and reports ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WARM_UP_MS = 200
LEAST_RUNS = 10
ROUNDS = 10


@dataclass(frozen=True)
class Timing:
    """Times of one case in ms: median, mean, percentiles as trtexec counts them, and their number.

    `ratio` is the baseline's time over this one's, above 1 where this is faster: the median over the rounds, with
    `ratio_low` and `ratio_high` as quartiles.
    """

    median_ms: float
    mean_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    runs: int
    ratio: float
    ratio_low: float
    ratio_high: float


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
    """Times all cases one after the other, round by round.

    A call of a case must return only when its work is done. Each has `rounds` turns of `inner` calls, after `warm_up`
    calls. `clock` returns seconds, None means wall time; `time.process_time` suits work on one core of a busy machine.
    """
    for call in cases.values():
        for _ in range(warm_up):
            call()
    times: dict[str, list[list[float]]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, call in cases.items():
            times[name].append([time_ms(call, clock) for _ in range(inner)])
    return summarise(times, baseline)


def compare_for(
    cases: Mapping[str, Callable[[], object]],
    baseline: str,
    duration_s: float,
    work: Mapping[str, float] | None = None,
    joules: Callable[[], float | None] = lambda: None,
    turn: Callable[[int, str], None] = lambda *_: None,
) -> dict[str, tuple[Timing, float | None]]:
    """Like `compare`, but each case runs for `duration_s` in all, over `ROUNDS` turns, as trtexec's options mean it.

    A case warms up for at least `WARM_UP_MS` and runs at least `LEAST_RUNS` times, even if that takes longer.

    Args:
        cases: what to time, by name; each call must return only when its work is done.
        baseline: the case that ratios are against.
        duration_s: seconds for each case.
        work: how much one call of a case does (frames, say): ratios compare times for the same work. None: equal work.
        joules: returns the energy used so far.
        turn: called before each turn with the round's number, from 1, and the case's name; 0 is the warm-up.

    Returns:
        For each case its times, and the joules of one call; None without a meter.
    """
    for name, call in cases.items():
        turn(0, name)
        _repeat(call, WARM_UP_MS, 1)
    times: dict[str, list[list[float]]] = {name: [] for name in cases}
    used: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(1, ROUNDS + 1):
        for name, call in cases.items():
            turn(number, name)
            call()  # threads and caches are still those of the last case
            before = joules()
            times[name].append(_repeat(call, 1e3 * duration_s / ROUNDS, LEAST_RUNS // ROUNDS))
            after = joules()
            if before is not None and after is not None:
                used[name].append(after - before)
    timings = summarise(times, baseline, work)
    return {name: (timing, sum(used[name]) / timing.runs if used[name] else None) for name, timing in timings.items()}


def time_ms(call: Callable[[], object], clock: Callable[[], float] | None = None) -> float:
    """Returns the time of a call in ms; `clock` returns seconds, None means wall time."""
    clock = clock or time.perf_counter
    start = clock()
    call()
    return (clock() - start) * 1e3


def _repeat(call: Callable[[], object], least_ms: float, least_runs: int) -> list[float]:
    times_ms: list[float] = []
    while len(times_ms) < least_runs or sum(times_ms) < least_ms:
        times_ms.append(time_ms(call))
    return times_ms


def summarise(
    times: Mapping[str, list[list[float]]], baseline: str, work: Mapping[str, float] | None = None
) -> dict[str, Timing]:
    """Sums up times in ms by case and round."""
    amount = {name: work[name] if work else 1 for name in times}
    per_round = {name: [statistics.median(row) / amount[name] for row in rows] for name, rows in times.items()}
    return {name: _summarise(rows, per_round[name], per_round[baseline]) for name, rows in times.items()}


def _summarise(rows: list[list[float]], own: list[float], base: list[float]) -> Timing:
    runs = sorted(ms for row in rows for ms in row)
    ratios = sorted(reference / ms for reference, ms in zip(base, own, strict=True))
    quarter = len(ratios) // 4
    return Timing(
        median_ms=statistics.median(runs),
        mean_ms=statistics.fmean(runs),
        p90_ms=percentile(runs, 90),
        p95_ms=percentile(runs, 95),
        p99_ms=percentile(runs, 99),
        runs=len(runs),
        ratio=statistics.median(ratios),
        ratio_low=ratios[quarter],
        ratio_high=ratios[-1 - quarter],
    )
