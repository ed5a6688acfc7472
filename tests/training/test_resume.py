"""Runs that are killed, stopped, or shared by two processes give what one undisturbed run gives."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from synthetic import write_dataset

from salema.export.weights.checkpoints import load_checkpoint
from salema.training.cli import main
from salema.training.log import LOG, read_log

COMMON = ("--width", "1/8", "--imgsz", "32", "32", "--device", "cpu", "--half-size", "0", "--val", "2:1")
# With a carried state, dropout, an average and a learned alpha: all that a state must hold.
PAPER = ("--recipe", "paper", "--lr", "1e-3", "--average", "0.9", "--epochs", "2", "--clip-frames", "2")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gaze")
    write_dataset(folder, "other", videos=4, frames=5, size_hw=(32, 32))
    return folder


def arguments(videos, folder, *options):
    return ["--dataset", "other", "--src", str(videos), "-o", str(folder), *COMMON, *options]


def start(arguments, *launcher):
    line = [sys.executable, *launcher, "-m", "salema.training.cli", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(arguments):
    """Runs the command in this process, with one thread too; gives its exit code and what it told."""
    err, threads = io.StringIO(), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["salema-train", *arguments])
        torch.set_num_threads(1)
        try:
            main()
        finally:
            torch.set_num_threads(threads)
    assert "Traceback" not in err.getvalue()
    return stop.value.code or 0, err.getvalue()


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory):
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    code, err = run(arguments(videos, folder, *PAPER))
    assert code == 0, err
    return folder


def wait_for_lines(folder, count):
    log = folder / LOG
    for _ in range(2400):
        if log.is_file() and len(log.read_text().splitlines()) >= count:
            return
        time.sleep(0.05)
    pytest.fail("the run did not come so far")


def same(folder, whole):
    assert read_log(folder) == read_log(whole)
    for name in ("last.pt", "best.pt"):
        ours, theirs = (load_checkpoint(str(place / name)) for place in (folder, whole))
        assert ours.learned_alpha == theirs.learned_alpha
        assert all(torch.equal(ours.weights[key], theirs.weights[key]) for key in theirs.weights)


@pytest.mark.parametrize(("asked", "code", "lines"), [(signal.SIGKILL, -9, 5), (signal.SIGINT, 130, 8)])
def test_a_run_that_ended_early_goes_on_as_if_it_had_not(videos, whole, tmp_path, asked, code, lines):
    process = start(arguments(videos, tmp_path / "run", *PAPER, "--save-steps", "2"))
    wait_for_lines(tmp_path / "run", lines)
    process.send_signal(asked)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert len(read_log(tmp_path / "run")) < len(read_log(whole))
    resumed, err = run(arguments(videos, tmp_path / "run", *PAPER, "--save-steps", "2", "--resume"))
    assert resumed == 0, err
    same(tmp_path / "run", whole)


def test_two_processes_share_what_one_does_alone(videos, tmp_path):
    options = ("--batch", "2", "--clip-frames", "3", "--epochs", "3", "--dropout", "0.3")
    code, err = run(arguments(videos, tmp_path / "alone", *options))
    assert code == 0, err
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = start(arguments(videos, tmp_path / "shared", *options), *torchrun)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    alone, shared = (read_log(tmp_path / name) for name in ("alone", "shared"))
    assert len(alone) == len(shared) == 6
    for one, both in zip(alone, shared, strict=True):
        if "loss" in one:
            assert both["loss"] == pytest.approx(one["loss"], rel=1e-3)
        else:
            assert both["scores"]["nss"] == pytest.approx(one["scores"]["nss"], abs=0.05)


def test_a_run_goes_on_with_its_own_settings_only(videos, whole, tmp_path):
    code, err = run(arguments(videos, whole, *PAPER))
    assert code == 2
    assert "holds a run; go on with it by --resume, or choose another folder" in err
    code, err = run(arguments(videos, whole, *PAPER, "--seed", "4", "--resume"))
    assert code == 2
    assert "was begun with --seed 0, not --seed 4" in err
    code, err = run(arguments(videos, tmp_path, *PAPER, "--resume"))
    assert code == 2
    assert "holds no run" in err


def test_a_damaged_state_is_named(videos, whole, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps(json.loads((whole / "settings.json").read_text())))
    (tmp_path / "state.pt").write_bytes((whole / "state.pt").read_bytes()[:1000])
    code, err = run(arguments(videos, tmp_path, *PAPER, "--resume"))
    assert code == 2
    assert "state.pt: can't be read; begin another run, in another folder" in err
