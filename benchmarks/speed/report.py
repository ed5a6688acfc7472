"""Records of `salema-bench` as a Markdown table and as plots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from salema.benchmarks.machine.environment import cpu_in_words, machine_in_words, power_mode_in_words
from salema.benchmarks.plotting import new_figure, save_figure
from salema.benchmarks.speed.records import key_of
from salema.runtime.wording import counted, listed

_SHARES = ("done of peak", "graph of peak", "graph of product")
HEADER = ("case", "precision", "batch", "runs", "ms", "p99 ms", "fps", "x baseline", "CC", *_SHARES, "J/frame")
_MARKERS = {"fp32": "o", "fp16": "s", "bf16": "^", "int8": "D"}
_LEAST_LOSS = 1e-7  # 1 - CC, near the resolution of float32
_LEAST_TICKS = 4
_ROOM = 1.15  # around the outermost points


def latest(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the last record of each case on each machine, in the order in which they first appear."""
    last: dict[tuple[object, ...], dict[str, Any]] = {}
    for record in sorted(records, key=lambda record: str(record["time_utc"])):
        model = record["model"] or {}
        more = (machine_in_words(record["environment"]), model.get("height"), model.get("width"))
        last[(*key_of(record), *more)] = record
    return list(last.values())


def table(records: Sequence[dict[str, Any]]) -> str:
    """Returns a Markdown table of each machine's records, with notes on it below; a dash where nothing was measured."""
    return "\n\n".join(_table(group) for group in by_machine(records).values())


def by_machine(records: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Returns the records of each machine, by the machine in words."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(machine_in_words(record["environment"]), []).append(record)
    return groups


def _table(records: Sequence[dict[str, Any]]) -> str:
    """Returns a table without the shares that no record has."""
    cells = [_row(record) for record in records]
    columns = [
        index for index, name in enumerate(HEADER) if name not in _SHARES or any(row[index] != "-" for row in cells)
    ]
    rows = [HEADER, tuple("-" * 3 for _ in HEADER), *cells]
    lines = ["| " + " | ".join(row[index] for index in columns) + " |" for row in rows]
    shared = (_note_on_shares(record) for record in records if any(share is not None for share in _shares(record)))
    notes = dict.fromkeys([*(_note(record) for record in records), *shared])
    return "\n".join([*lines, "", *notes])


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    timing, quality = record["timing"], record["quality"] or {}
    is_baseline = record["case"] == record["baseline"]
    ratio = f"{timing['ratio']:.2f} ({timing['ratio_low']:.2f}-{timing['ratio_high']:.2f})"
    return (
        record["case"],
        record["precision"],
        str(record["batch"]),
        str(timing["runs"]),
        *(_three_digits(value) for value in (timing["median_ms"], timing["p99_ms"], record["fps"])),
        "1, the baseline" if is_baseline else ratio,
        _or_dash(quality.get("cc"), ".5f"),
        *(_or_dash(share, ".0%") for share in _shares(record)),
        "-" if record["energy_j_per_frame"] is None else _three_digits(record["energy_j_per_frame"]),
    )


def _three_digits(value: float) -> str:
    """Returns a number with one decimal, and a small one with three digits that count."""
    return f"{value:.1f}" if value >= 10 or value <= 0 else f"{value:#.3g}"  # noqa: PLR2004


def _shares(record: dict[str, Any]) -> tuple[float | None, float | None, float | None]:
    """Returns the shares of `_SHARES`; that of a product only where no peak was measured."""
    limit = record["limit"] or {}
    of_product = limit.get("graph_share_of_product", limit.get("share"))  # the latter in schema 1
    done, graph = limit.get("done_share_of_peak"), limit.get("graph_share_of_peak")
    return done, graph, None if _peaks(record) else of_product


def _peaks(record: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the measured peaks; None where there are none, as on a CPU with a matrix unit, which is not measured."""
    peaks: dict[str, Any] | None = record.get("peaks")
    return peaks if peaks and peaks["operations_per_s"] else None


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _note(record: dict[str, Any]) -> str:
    """Returns when, where and of which commit a record is, and how to read it."""
    facts, reference = record["environment"], (record["quality"] or {}).get("reference")
    commit = f", commit {facts['commit']}" if facts["commit"] else ""
    against = f" CC is the least of a frame's, against {reference}." if reference else ""
    meters = f" Joules are those of {listed(record['energy_sources'])}." if record["energy_sources"] else ""
    return (
        f"{record['time_utc'][:10]}: {machine_in_words(facts)}{commit}. ms are medians of whole steps; p99 of fewer"
        f" than 100 runs is the slowest; baseline {record['baseline']}, quartiles in brackets.{against}{meters}"
    )


def _note_on_shares(record: dict[str, Any]) -> str:
    peaks = _peaks(record)
    if peaks is None:
        return (
            "No peak was measured; graph of product sets the graph's multiplications against the rate of a matrix"
            f" product ({record['rates']['how']}), which is no limit."
        )
    rates = ", ".join(
        f"{rate / 1e9:.0f} in {precision} ({peaks['instructions'][precision]})"
        for precision, rate in peaks["operations_per_s"].items()
    )
    ghz = max(peaks["clock_ghz"].values())
    return (
        f"The peak is, in 1e9 operations/s on {counted(peaks['cores'], 'core')} at {ghz:.1f} GHz: {rates}. done counts"
        " the multiplications that are done, graph those that the graph names."
    )


def details(records: Sequence[dict[str, Any]]) -> str:
    """Returns a line on each whole run and each engine that was timed alone."""
    lines = []
    for record in records:
        run, engine = record["run"], record["engine"]
        if run:
            stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in run["stage_ms"].items())
            broke = f"; it broke off: {run['error']}" if run["error"] else ""
            lines.append(
                f"- {record['case']}: a whole run {run['fps']:.1f} fps over {run['frames']} frames, side by side;"
                f" ms per frame: {stages}{broke}"
            )
        if start := record.get("start_ms"):
            parts = ", ".join(f"{part} {ms:.0f}" for part, ms in start.items() if part != "total")
            lines.append(f"- {record['case']}: {start['total']:.0f} ms from the start to the first map: {parts}")
        if engine:
            parts = ", ".join(f"{name} {engine[name]['median_ms']:.3f}" for name in ("upload", "compute", "download"))
            share = f"; a whole run has {run['fps'] / engine['throughput_qps']:.2f} of its rate" if run else ""
            lines.append(
                f"- {record['case']}: its engine alone {engine['throughput_qps']:.1f} queries/s, compute p99"
                f" {engine['compute']['p99_ms']:.3f} ms; median ms: {parts},"
                f" enqueue {engine['enqueue']['median_ms']:.3f}{share}"
            )
    return "\n".join(lines)


def plot(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws time against accuracy by precision, and throughput against batch, a row for each machine.

    Raises:
        OutputError: the file can't be written.
    """
    has_batches, machines = len({record["batch"] for record in records}) > 1, by_machine(records)
    figure = new_figure(16 if has_batches else 10, 5 * len(machines))
    rows = figure.subplots(len(machines), 1 + has_batches, squeeze=False)
    for axes, group in zip(rows, machines.values(), strict=True):
        facts = group[0]["environment"]
        words = [cpu_in_words(facts, short=True), power_mode_in_words(facts)]
        where = "".join(f", {word}" for word in words if word) if len(machines) > 1 else ""
        _plot_accuracy(axes[0], group, where)
        if has_batches:
            _plot_batches(axes[1], group, where)
    save_figure(figure, path)


def _plot_accuracy(axes: Any, records: Sequence[dict[str, Any]], where: str) -> None:
    single = [record for record in records if record["batch"] == 1 and record["quality"]]
    from matplotlib import colormaps  # noqa: PLC0415 - in the extra `plot`

    axes.set_prop_cycle(color=[colormaps["tab20"](index) for index in range(20)])
    for record in single:
        loss = _loss(record)
        label, marker = f"{record['case']} {record['precision']}", _MARKERS.get(record["precision"], "x")
        axes.plot(record["timing"]["median_ms"], loss, marker, markersize=8, label=label)
    axes.set(xlabel="ms per frame, median", ylabel="1 - CC against float32", title=f"Time and accuracy{where}")
    axes.set(xscale="log", yscale="log")
    if single:
        _scale([record["timing"]["median_ms"] for record in single], [_loss(record) for record in single], axes)
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)  # beside the points


def _loss(record: dict[str, Any]) -> float:
    return max(1 - float(record["quality"]["cc"]), _LEAST_LOSS)


def _scale(times_ms: Sequence[float], losses: Sequence[float], axes: Any) -> None:
    """Labels the time axis with plain numbers, and leaves room below the lowest loss, which stands for all below it."""
    from matplotlib import ticker  # noqa: PLC0415 - see above

    low, high = min(times_ms) / _ROOM, max(times_ms) * _ROOM
    axes.set(xlim=(low, high), ylim=(_LEAST_LOSS / 3, max(*losses, 10 * _LEAST_LOSS) * 3))
    axes.xaxis.set_major_locator(ticker.FixedLocator(_plain_ticks(low, high)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    decades = [10.0**power for power in range(-7, 1) if 10.0**power <= axes.get_ylim()[1]]
    axes.yaxis.set_major_locator(ticker.FixedLocator(decades))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    names = {_LEAST_LOSS: f"{_LEAST_LOSS:g} or less"}
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: names.get(value, f"{value:g}")))
    axes.axhline(_LEAST_LOSS, color="0.8", linestyle="--", linewidth=1, zorder=0)
    axes.grid(axis="x", color="0.92")


def _plain_ticks(low: float, high: float) -> list[float]:
    """Returns round numbers in a range, even on a logarithmic axis: the fewest per decade that give at least 4."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - see above

    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)):
        ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(ticks) >= _LEAST_TICKS:
            return ticks
    linear = MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high)  # for so narrow a range
    return [float(f"{tick:.6g}") for tick in linear if low <= tick <= high]


def _plot_batches(axes: Any, records: Sequence[dict[str, Any]], where: str) -> None:
    lines: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        name = f"{record['case'].partition(', batch ')[0]} {record['precision']}"
        lines.setdefault(name, []).append((record["batch"], record["fps"]))
    for name, points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    axes.set_xticks(sorted({record["batch"] for record in records}))
    most = max(record["fps"] for record in records)
    axes.set(xlabel="streams per step", ylabel="frames per second", title=f"Throughput{where}", ylim=(0, most * _ROOM))
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
