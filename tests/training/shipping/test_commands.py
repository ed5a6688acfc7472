"""The commands by hand say in one sentence what went wrong, and a training that was stopped can be gone on with."""

import importlib
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMMANDS = {
    "lay_out": ("--src", "gone", "--dst", "out"),
    "mean_maps": ("--src", "gone", "--weights", "nano", "--dst", "out"),
    "photograph_scores": ("--src", "gone", "scores.json"),
    "precisions": ("--src", "gone", "--calib", "gone", "--clip", "gone.mp4", "precisions.json"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_missing_folder_is_named(cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    ran = cli(importlib.import_module(f"salema.training.shipping.{name}").main, *COMMANDS[name])
    assert ran.code == 1
    assert ran.err.startswith(f"{name}: gone: no such folder; name the one that holds the photographs")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("begun", ["half", "whole"])
def test_the_training_of_nano_goes_on_where_it_was_stopped(tmp_path, begun):
    (tmp_path / begun).mkdir()
    (tmp_path / begun / "settings.json").touch()
    line = ["make", "--dry-run", "train-nano", "DATA=osie", f"RUN={tmp_path}"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    told = subprocess.run(line, cwd=ROOT, env=clean, capture_output=True, text=True, check=True).stdout
    lines = [line for line in told.splitlines() if "salema-train" in line]
    assert [
        f"--resume -o {tmp_path / run}" in line for run, line in zip(("half", "whole", "clips"), lines, strict=True)
    ] == [run == begun for run in ("half", "whole", "clips")]
