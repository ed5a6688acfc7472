"""The commands by hand say in one sentence what went wrong, and a training that was stopped can be gone on with."""

import importlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMMANDS = {
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


def run_make(folder, *arguments):
    """Runs make in a folder, untouched by a make that runs the tests; returns what it prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    line = ["make", *arguments]
    return subprocess.run(line, cwd=folder, env=clean, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("begun", ["half", "whole"])
def test_the_training_of_nano_goes_on_where_it_was_stopped(tmp_path, begun):
    (tmp_path / begun).mkdir()
    (tmp_path / begun / "settings.json").touch()
    told = run_make(ROOT, "--dry-run", "train-nano", "DATA=osie", f"RUN={tmp_path}")
    lines = [line for line in told.splitlines() if "salema-train" in line]
    assert [
        f"--resume -o {tmp_path / run}" in line for run, line in zip(("half", "whole", "clips"), lines, strict=True)
    ] == [run == begun for run in ("half", "whole", "clips")]


def test_cleaning_leaves_the_runs_of_a_training(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("train-nano/half/state.pt", "salema-training/state.pt", "build/lib/a.py", "demo-output/a.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    run_make(tmp_path, "clean")
    assert {path.name for path in tmp_path.iterdir()} == {"Makefile", "train-nano", "salema-training"}
    assert (tmp_path / "train-nano/half/state.pt").is_file()
