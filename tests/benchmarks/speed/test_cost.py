"""Cost against work, on a narrow network."""

import pytest

from salema.benchmarks.speed.cost import Point, cost_record, cost_table, fit_lines, measure_cost, plot_cost, run_steps


@pytest.mark.slow
def test_each_point_runs_in_its_own_process_and_larger_frames_take_longer(exported):
    said = []
    points = measure_cost(
        lambda hw: exported(weights="seeded:16", imgsz_hw=hw, batch=None),
        "onnxruntime",
        said.append,
        sizes_hw=((64, 96), (256, 384)),
        batches=(2,),
        lengths=(3,),
    )
    assert [(point.axis, point.value, point.label) for point in points] == [
        ("size", 64 * 96, "64x96"),
        ("size", 256 * 384, "256x384"),
        ("batch", 2, "2"),
        ("length", 3, "3"),
    ]
    small, large, *_ = points
    assert large.step_ms > 2 * small.step_ms
    assert large.peak_mb > small.peak_mb
    assert len(said) == 4


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
