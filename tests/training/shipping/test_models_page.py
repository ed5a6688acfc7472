"""The page on the weights that ship says what was measured, beside what `photograph_scores` and `precisions` check."""

import json
import math
from pathlib import Path

import pytest

from salema.export.weights.checkpoints import load_checkpoint
from salema.training.shipping.run_speed import BACKENDS

ROOT = Path(__file__).parents[3]
PAGE = " ".join((ROOT / "docs/models.md").read_text("utf-8").split())


def record(name):
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text("utf-8"))


RUNS = record("training")["runs"]
SHIPPED = {"nano": "nano, clips"}


def test_the_speed_of_whole_runs():
    older, newer = (each["runs"] for each in record("whole_runs"))
    old, new = older["nano"]["video"], newer["nano"]["video"]
    assert set(new) >= {f"salema-run, {backend}" for backend in BACKENDS} >= set(old)
    assert f"| `salema-run`, `auto` | - | {new['salema-run, auto']['median']:.1f} |" in PAGE
    for backend, name in {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "ncnn": "ncnn"}.items():
        fps = [each[f"salema-run, {backend}"]["median"] for each in (old, new)]
        assert f"| `salema-run`, {name} | {fps[0]:.1f} | {fps[1]:.1f} |" in PAGE
    for loop in (name for name in new if name.endswith("a loop")):
        assert f"| - | {new[loop]['median']:.1f} |" in PAGE
    for ways in (newer["nano"]["folder"], *newer["seeded"].values()):
        for way in ways.values():
            assert f"{way['median']:.1f}" in PAGE


@pytest.mark.parametrize("name", RUNS)
def test_each_run_is_in_the_table_whether_it_ships_or_not(name):
    best = max(RUNS[name]["scores"], key=lambda one: one["nss"])
    numbers = f"{best['nss']:.3f} | {best['auc_judd']:.3f} | {best['cc']:.3f}"
    assert f"| {name} | {RUNS[name]['settings']['seed']} | {best['epoch']} | {numbers} |" in PAGE


@pytest.mark.parametrize(("name", "run"), SHIPPED.items())
def test_what_ships_is_what_its_last_run_left(name, run):
    coefficient = RUNS[run]["coefficient"][1]
    assert 1 / (1 + math.exp(-load_checkpoint(name).learned_alpha)) == pytest.approx(coefficient, abs=0.02)
    assert f"{coefficient:.2f}" in PAGE
