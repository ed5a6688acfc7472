"""The plots of `salema-bench`, read from Matplotlib's objects."""

import fcntl
import math
import os
import pty
import struct
import sys
import termios
from pathlib import Path

import pytest

from salema.benchmarks.progress import TurnBar
from salema.benchmarks.speed import report
from salema.benchmarks.speed.cost import Point, fit_lines, plot_cost
from salema.benchmarks.speed.records import read_records

RESULTS = Path(report.__file__).parents[1] / "results"


def drawn(monkeypatch, module, draw):
    """What is drawn, in place of the file."""
    kept = []
    monkeypatch.setattr(module, "save_figure", lambda figure, _: kept.append(figure))
    draw()
    (figure,) = kept
    figure.canvas.draw()
    return figure


def labels(axis):
    low, high = sorted(axis.get_view_interval())
    ticks = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
    return [label.get_text() for place, label in ticks if low <= place <= high]


@pytest.mark.parametrize("file", ["cpu", "cpu_batch"])
def test_times_are_plain_numbers_and_no_point_is_cut_or_hidden(monkeypatch, file):
    records = read_records(RESULTS / f"{file}.jsonl")
    figure = drawn(monkeypatch, report, lambda: report.plot(records, None))
    axes = figure.axes[0]
    numbers = labels(axes.xaxis)
    assert len(numbers) >= 3
    assert all(number.isdigit() for number in numbers), numbers
    assert labels(axes.yaxis)[0] == "1e-07 or less"
    frame, legend = axes.get_window_extent(), axes.get_legend().get_window_extent()
    assert legend.x0 >= frame.x1
    for panel in figure.axes:
        frame = panel.get_window_extent()
        for line in panel.get_lines():
            if line.get_marker() in {None, "None"}:
                continue
            radius = line.get_markersize() / 2 * figure.dpi / 72
            for x, y in panel.transData.transform(line.get_xydata()):
                assert frame.x0 + radius <= x <= frame.x1 - radius
                assert frame.y0 + radius <= y <= frame.y1 - radius


@pytest.mark.parametrize(("low", "high"), [(0.08, 0.1), (0.5, 20), (3, 4000), (261, 551), (97, 103)])
def test_ticks_are_round_numbers_within_the_axis(low, high):
    ticks = report._plain_ticks(low, high)
    assert len(ticks) >= 3
    assert ticks == sorted(ticks)
    for tick in ticks:
        assert low <= tick <= high
        assert math.isclose(tick, float(f"{tick:.3g}"))


def test_no_point_of_the_cost_is_cut(monkeypatch):
    points = [
        Point(axis, value, str(value), ms, ms, memory)
        for axis in ("size", "batch", "length")
        for value, ms, memory in ((10, 5, 451), (30, 7, 526), (921_600, 9000, 455))
    ]
    from salema.benchmarks.speed import cost

    figure = drawn(monkeypatch, cost, lambda: plot_cost(points, fit_lines(points), None))
    for axes in figure.axes:
        assert axes.get_ylim()[0] == 0
        highest = max(line.get_ydata().max() for line in axes.get_lines())
        assert axes.get_ylim()[1] >= 1.1 * highest
        assert axes.get_ylabel() in {"ms per step", "s in all", "peak memory, MB"}


def test_rounds_are_told_a_line_each_where_there_is_no_terminal(capsys):
    with TurnBar(6) as turn:
        for number in range(3):
            for case in ("a", "b"):
                turn(number, case)
    assert capsys.readouterr().err.splitlines() == ["  warming up", "  round 1 of 10", "  round 2 of 10"]


def test_a_terminal_gets_a_bar_with_the_case_that_runs(monkeypatch):
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    with os.fdopen(child, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with TurnBar(4) as turn:
            for number in range(2):
                for case in ("a", "b"):
                    turn(number, case)
        terminal.flush()
        text = ""
        while not text.endswith("\n"):
            text += os.read(parent, 100_000).decode()
    os.close(parent)
    assert "round 1 of 10: b" in text
    assert "4/4" in text


def test_the_figures_of_the_documents_are_drawn_by_this_code(tmp_path):
    """As large as the stored plot: after a change of a plot, draw it anew."""
    import cv2

    records = read_records(RESULTS / "cpu.jsonl")
    report.plot(records, tmp_path / "p.png")
    kept = cv2.imread(str(RESULTS.parent.parent / "docs/speed_cpu.png"))
    assert cv2.imread(str(tmp_path / "p.png")).shape == kept.shape


def test_a_share_of_a_product_is_told_from_shares_of_the_peak():
    """The first record is of schema 1, the second has a peak."""
    old = read_records(RESULTS / "cpu.jsonl")[0]
    peaks = {"operations_per_s": {"fp32": 512e9}, "instructions": {"fp32": "FMA, 512 bits"}}
    peaks |= {"clock_ghz": {"fp32": 4.02}, "cores": 2}
    limit = {"done_share_of_peak": 0.71, "graph_share_of_peak": 1.63, "graph_share_of_product": 4.2}
    new = {**old, "schema": 2, "case": "new", "limit": limit, "peaks": peaks}
    text = report.table([old, new])
    header, _, first, second = text.splitlines()[:4]
    assert header.endswith("| CC | done of peak | graph of peak | graph of product | J/frame |")
    assert first.endswith("| - | - | 79% | - |")
    assert second.endswith("| 71% | 163% | - | - |")
    assert "the rate of a matrix product (PyTorch 2.13.0+cpu), which is no limit." in text
    assert "in 1e9 operations/s on 2 cores at 4.0 GHz: 512 in fp32 (FMA, 512 bits)." in text
    assert report.table([old]).startswith(
        "| case | precision | batch | runs | ms | p99 ms | fps | x baseline | CC | graph of prod"
    )
    assert " graph of product " not in report.table([new])


def test_a_cpu_without_a_measured_instruction_has_no_peak():
    """One with a matrix unit, whose other instructions do not count."""
    old = read_records(RESULTS / "cpu.jsonl")[0]
    peaks = {"operations_per_s": {}, "instructions": {}, "clock_ghz": {}, "cores": 2, "how": ""}
    assert report.table([old | {"peaks": peaks}]) == report.table([old])


def test_only_shares_that_are_there_are_explained():
    old = read_records(RESULTS / "cpu.jsonl")[0]
    assert "No peak was measured" not in report.table([old | {"limit": None}])


def test_a_jetsons_power_modes_are_machines_of_their_own():
    old = read_records(RESULTS / "cpu.jsonl")[0]
    board = {"cpu": "ARMv8", "cpu_family_and_model": "None/None", "cpu_features": ["asimd"], "board": "Jetson Orin"}
    records = [
        old | {"environment": old["environment"] | board | {"power_mode": f"NV Power Mode: {mode}\n2"}}
        for mode in ("15W", "MAXN")
    ]
    assert report.latest(records) == records
    text = report.table(records)
    assert ": ARMv8 (asimd), 2 cores, Jetson Orin, power mode 15W, commit " in text
    assert ": ARMv8 (asimd), 2 cores, Jetson Orin, power mode MAXN, commit " in text


def test_small_numbers_keep_three_digits():
    old = read_records(RESULTS / "cpu.jsonl")[0]
    timing = old["timing"] | {"median_ms": 0.2134, "p99_ms": 7.0, "runs": 321}
    record = old | {
        "timing": timing,
        "fps": 4686.04,
        "energy_j_per_frame": 0.001236,
        "energy_sources": ["RAPL package-0"],
    }
    text = report.table([record])
    row = text.splitlines()[2]
    assert row.startswith("| pytorch | fp32 | 1 | 321 | 0.213 | 7.00 | 4686.0 | ")
    assert row.endswith(" | 0.00124 |")
    assert " Joules are those of RAPL package-0." in text
