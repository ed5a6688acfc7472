"""A crash of a backend, which takes the stage's process with it, loses no other backend's results."""

import json
import signal

import pytest

from salema.benchmarks.gpu import cases, check, stages
from salema.benchmarks.gpu.check import main
from salema.benchmarks.gpu.settings import Settings
from salema.runtime.backends.opening import open_session

ENDED = "its process ended with SIGSEGV"


class Crash(BaseException):
    """Ends what stands for a stage's process."""


def crashes(*_):
    raise Crash


@pytest.fixture
def run(cli, tmp_path, model, monkeypatch):
    """Runs the parity of backends, by name; returns its record and the limits of its processes, which run in ours."""
    limits_s = []

    def run_limited(command, limit_s, environment):
        limits_s.append(limit_s)
        try:
            return int(not stages.run(command[3], Settings.from_json(command[4])))
        except Crash:
            return -signal.SIGSEGV

    monkeypatch.setattr(check, "run_limited", run_limited)
    monkeypatch.setattr(cases, "export_models", lambda *_: [model])
    monkeypatch.setattr(stages, "PRECISIONS", ("fp32",))

    def made(**openers):
        monkeypatch.setattr(cases, "openers", lambda *_, **__: openers)
        options = ("--device", "cpu", "--only", "parity", "--weights", "seeded:16", "--frames", 4, "--rounds", 2)
        assert cli(main, "--out", tmp_path, *options, "--imgsz", 64, 96).code == 1
        record = json.loads((tmp_path / "parity.json").read_text())
        assert not record["ok"]
        return record, limits_s

    return made


@pytest.fixture
def opened(model):
    return lambda: open_session(model, "onnxruntime", "cpu")


def test_parity_goes_again_without_the_backend_that_crashed(run, opened):
    record, limits_s = run(ours=opened, crashing=crashes, last=opened)
    assert list(record["fp32"]["parity"]) == list(record["fp32"]["speed"]) == ["ours", "last"]
    assert record["failed"] == [f"fp32, crashing: {ENDED}"]
    assert len(limits_s) == 2
    assert limits_s[1] < limits_s[0]


def test_a_crash_as_all_are_timed_leaves_what_was_compared(run, opened, monkeypatch):
    monkeypatch.setattr(cases, "_time_sessions", crashes)
    record, _ = run(ours=opened, last=opened)
    assert list(record["fp32"]["parity"]) == ["ours", "last"]
    assert record["failed"] == [f"fp32, all in turns: {ENDED}"]


def test_a_crash_that_comes_again_ends_the_stage(run, opened, monkeypatch):
    monkeypatch.setattr(cases, "_close", crashes)
    record, limits_s = run(ours=opened)
    assert list(record["fp32"]["parity"]) == ["ours"]
    assert record["error"] == ENDED
    assert len(limits_s) == 2
