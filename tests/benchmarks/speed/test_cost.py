"""Cost against work, on a narrow network."""

import pytest

from salema.benchmarks.speed import cost
from salema.benchmarks.speed.cli import main
from salema.benchmarks.speed.cost import Point, cost_record, cost_table, fit_lines, measure_cost, plot_cost, run_steps
from salema.benchmarks.speed.records import read_records


@pytest.mark.slow
def test_each_point_runs_in_its_own_process_and_larger_frames_take_longer(exported, monkeypatch):
    for name, values in (("SIZES_HW", ((64, 96), (192, 256))), ("BATCHES", (2,)), ("LENGTHS", (3,))):
        monkeypatch.setattr(cost, name, values)
    said = []

    def export(size_hw):
        return exported(weights="seeded:16", imgsz_hw=size_hw, batch=None)

    points = list(measure_cost(export, "onnxruntime", said.append))
    assert [(point.axis, point.value, point.label) for point in points] == [
        ("size", 64 * 96, "64x96"),
        ("size", 192 * 256, "192x256"),
        ("batch", 2, "2"),
        ("length", 3, "3"),
    ]
    small, large, *_ = points
    assert large.step_ms > 2 * small.step_ms
    assert large.peak_mb > small.peak_mb
    assert len(said) == 4


def test_a_point_for_which_memory_does_not_suffice_loses_no_other(cli, tmp_path, monkeypatch):
    def measure(folder, backend, batch, frames):
        return None if batch == 16 else (100.0 + batch, 1.0, 50.0)

    monkeypatch.setattr(cost, "_in_own_process", measure)
    monkeypatch.setattr("salema.export.exporter.export_model", lambda *_: None)
    ran = cli(main, "cost", "--json", tmp_path / "c.jsonl")
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("salema-bench: batch 16: the process was killed, most likely for want")
    assert "| streams per step | 8 | 108.0 | 1.00 | 50 |" in ran.out
    (record,) = read_records(tmp_path / "c.jsonl", "cost")
    assert len(record["cost"]) == 14


def test_what_was_measured_before_an_interruption_is_kept(cli, tmp_path, monkeypatch):
    def measure(*_):
        if measured:
            raise KeyboardInterrupt
        measured.append(1)
        return 100.0, 1.0, 50.0

    measured = []
    monkeypatch.setattr(cost, "_in_own_process", measure)
    monkeypatch.setattr("salema.export.exporter.export_model", lambda *_: None)
    ran = cli(main, "cost", "--json", tmp_path / "c.jsonl", "--plot", tmp_path / "c.png")
    assert ran.code == 130
    assert "| pixels per frame | 96x128 | 100.0 | 1.00 | 50 |" in ran.out
    (record,) = read_records(tmp_path / "c.jsonl", "cost")
    assert (len(record["cost"]), record["lines"]) == (1, [])
    assert (tmp_path / "c.png").is_file()


def test_steps_are_counted_after_the_warm_up(exported):
    median_ms, total_s, peak_mb = run_steps(exported(batch=None), "onnxruntime", 2, 5)
    assert 0 < median_ms < 1e3 * total_s
    assert peak_mb > 10


def line_of(axis, values, time):
    return [Point(axis, value, str(value), time(value), time(value) / 1e3, 100 + 2 * value) for value in values]


@pytest.fixture
def points():
    return [
        *line_of("size", (10, 20, 40), lambda x: 5 + 3 * x),
        *line_of("batch", (1, 2, 4), lambda x: 7 * x),
        *line_of("length", (1, 2, 3), lambda x: 1000 * x),
    ]


def test_straight_lines_are_found(points):
    found = {(line.axis, line.quantity): line for line in fit_lines(points)}
    assert found["size", "step_ms"].fixed == pytest.approx(5)
    assert found["size", "step_ms"].each == pytest.approx(3)
    assert found["size", "peak_mb"].fixed == pytest.approx(100)
    assert found["length", "total_s"].each == pytest.approx(1)
    assert all(line.r_squared == pytest.approx(1) for line in found.values())
    bent = line_of("size", (1, 2, 3, 4), lambda x: x**4)
    assert fit_lines([*bent, *points[3:]])[0].r_squared < 0.95


def test_table_record_and_plot(points, tmp_path):
    lines = fit_lines(points)
    text = cost_table(points, lines)
    assert "| streams per step | 4 | 28.0 | 0.03 | 108 |" in text
    assert "- step_ms = 5 ms + 3 ms x pixels per frame (R squared 1.0000)" in text
    assert cost_record(points, "onnxruntime", "seeded")["lines"][0]["each"] == pytest.approx(3)
    plot_cost(points, lines, tmp_path / "cost.png")
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
