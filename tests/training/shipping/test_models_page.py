"""The page on the weights that ship says what was measured, beside what `photograph_scores` and `precisions` check."""

import json
import math
from pathlib import Path

import pytest

from salema.export.weights.checkpoints import load_checkpoint
from salema.training.shipping.run_speed import BACKENDS

ROOT = Path(__file__).parents[3]
PAGE = " ".join((ROOT / "docs/models.md").read_text("utf-8").split())
EPOCHS = {"half": 60, "whole": 10, "clips": 2}


def record(name):
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text("utf-8"))


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


def test_the_runs_that_made_nano():
    runs = record("nano_training")["runs"]
    for name, epoch in EPOCHS.items():
        scores = runs[name]["scores"]
        best = max(scores, key=lambda one: one["nss"])
        assert best["epoch"] == epoch
        assert f"| {best['nss']:.3f} | {best['auc_judd']:.3f} | {best['cc']:.3f} |" in PAGE
    assert f"went from 0.5 to {runs['clips']['coefficient'][1]:.2f}" in PAGE
    minutes = [f"{run['minutes_by_the_clock']:.0f}" for run in runs.values()]
    assert f"{minutes[0]}, {minutes[1]} and {minutes[2]} minutes" in PAGE


def test_nano_is_what_the_last_run_left():
    coefficient = record("nano_training")["runs"]["clips"]["coefficient"][1]
    assert 1 / (1 + math.exp(-load_checkpoint("nano").learned_alpha)) == pytest.approx(coefficient, abs=0.01)
