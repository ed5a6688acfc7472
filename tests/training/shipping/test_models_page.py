"""The page on the weights that ship says what was measured, beside what `photograph_scores` and `precisions` check."""

import json
import math
from pathlib import Path

import pytest

from salema.export.weights.checkpoints import load_checkpoint
from salema.training.shipping.run_speed import FORMS

ROOT = Path(__file__).parents[3]
PAGE = " ".join((ROOT / "docs/models.md").read_text("utf-8").split())
EPOCHS = {"half": 60, "whole": 10, "clips": 2}


def record(name):
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text("utf-8"))


def test_the_speed_of_whole_runs():
    fps = record("nano_runs")["runs"]["nano"]
    assert list(fps) == list(FORMS)
    ort, openvino, ncnn = (found["median"] for found in fps.values())
    assert f"{ort:.1f} frames a second in ONNX Runtime, {openvino:.1f} in OpenVINO, {ncnn:.1f} in ncnn" in PAGE


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
