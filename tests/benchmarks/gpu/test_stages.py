"""The stages of `make gpu-check`: what each records, also of what fails, hangs, or is missing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from salema.benchmarks.gpu import cases, gpu_tests, stages
from salema.benchmarks.gpu.check import main
from salema.benchmarks.gpu.gpu_tests import TOOLS, run_limited, run_sanitizers, run_tests
from salema.benchmarks.gpu.settings import Settings, Stage
from salema.runtime.backends.opening import open_session
from salema.runtime.errors import BackendError
from salema.runtime.gpu.trt_library import KINDS


@pytest.fixture
def settings(tmp_path):
    models = tmp_path / "models"
    return Settings(tmp_path, models, "seeded:16", 6, 2, "cpu", (64, 96), seconds=0.1, stage_s=60)


@pytest.fixture
def stage(settings):
    return Stage("it", settings, {})


def read(settings, name="it"):
    return json.loads((settings.out / f"{name}.json").read_text())


def test_settings_come_through_json_as_they_were(settings):
    assert Settings.from_json(settings.to_json()) == settings


TESTS = """
import os, signal
import pytest
pytestmark = getattr(pytest.mark, "gpu")
def test_good(): pass
def test_bad(): assert [1] == [2]
@pytest.mark.skip(reason="no TensorRT here")
def test_elsewhere(): pass
@pytest.fixture
def broken(): raise RuntimeError("no device")
def test_set_up(broken): pass
def test_last():
    if "KILLED" in os.environ: os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_tests_stage_records_what_each_test_gave(stage, settings, tmp_path, monkeypatch):
    (tmp_path / "test_it.py").write_text(TESTS)
    monkeypatch.setattr(gpu_tests, "GPU_TESTS", (str(tmp_path / "test_it.py"),))
    assert not run_tests(stage)
    found = read(settings)
    assert (found["exit_code"], found["ok"]) == (1, None)
    assert found["counts"] == {"passed": 2, "failed": 2, "skipped": 1}
    assert found["not_available"] == {"no TensorRT here": 1}
    assert [test.rpartition("::")[2] for test in found["failed"]] == ["test_bad", "test_set_up"]
    lines = [json.loads(line) for line in (tmp_path / "tests.jsonl").read_text().splitlines()]
    assert "assert [1] == [2]" in lines[1]["text"]
    assert "RuntimeError: no device" in lines[3]["text"]


def test_a_run_of_tests_that_is_killed_loses_nothing_of_those_before(stage, settings, tmp_path, monkeypatch):
    (tmp_path / "test_it.py").write_text(TESTS)
    monkeypatch.setattr(gpu_tests, "GPU_TESTS", (str(tmp_path / "test_it.py"),))
    monkeypatch.setenv("KILLED", "1")
    assert not run_tests(stage)
    found = read(settings)
    assert found["exit_code"] == -signal.SIGKILL
    assert found["counts"] == {"passed": 1, "failed": 2, "skipped": 1}


def test_a_file_of_tests_that_cannot_be_read_is_a_failure(stage, settings, tmp_path, monkeypatch):
    (tmp_path / "test_it.py").write_text("import a_package_that_is_not_there")
    monkeypatch.setattr(gpu_tests, "GPU_TESTS", (str(tmp_path / "test_it.py"),))
    assert not run_tests(stage)
    assert read(settings)["counts"] == {"failed": 1}


LIMIT_S = 12
STARTS = "sleep 60 & echo $! > {folder}/pid; wait"
# As a stage: what it starts is in another group.
STAGE = f"""
from salema.benchmarks.gpu.gpu_tests import end_when_told, run_limited
end_when_told()
run_limited(["sh", "-c", "{STARTS}"], 60)
"""


@pytest.mark.parametrize("command", [("sh", "-c", STARTS), (sys.executable, "-c", STAGE)], ids=["shell", "stage"])
def test_a_command_is_ended_with_all_that_it_started(tmp_path, command):
    class Popen(subprocess.Popen):
        def wait(self, timeout=None):
            """Its limit is over once it has started something: a busy machine would not keep to a time."""
            if timeout != LIMIT_S:
                return super().wait(timeout)
            while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
                time.sleep(0.01)
            raise subprocess.TimeoutExpired(self.args, timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", Popen)
        code = run_limited([part.format(folder=tmp_path) for part in command], LIMIT_S)
    assert code == gpu_tests.TIMED_OUT
    status = Path("/proc", (tmp_path / "pid").read_text().strip(), "status")
    for _ in range(600):
        if not status.is_file() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.05)
    pytest.fail("it still runs")


SANITIZER = """#!/bin/sh
[ "$1 $3 $4 $5 $6 $7 $8" = "--tool --report-api-errors no --error-exitcode 86 --target-processes all" ] || exit 2
[ "$2" = memcheck ] && exit {memcheck}
[ "$2" = racecheck ] && {{ echo "{racecheck}"; exit 86; }}
exit 0
"""


def with_sanitizer(tmp_path, monkeypatch, **options):
    """A stand-in: the real one needs a GPU."""
    program = tmp_path / "bin/compute-sanitizer"
    program.parent.mkdir()
    program.write_text(SANITIZER.format(**options))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_faults_that_a_sanitizer_finds_are_told_from_tests_that_fail(stage, settings, tmp_path, monkeypatch):
    with_sanitizer(tmp_path, monkeypatch, memcheck=1, racecheck="a race")
    assert not run_sanitizers(stage)
    found = read(settings)
    assert found["exit_codes"] == dict(zip(TOOLS, (1, 86, 0, 0), strict=True))
    assert found["faults"] == ["racecheck"]
    assert (tmp_path / "sanitizers.log").read_text() == "a race\n"


def test_a_sanitizer_that_refuses_the_device_is_not_available(stage, settings, tmp_path, monkeypatch):
    refusal = "========= Error: Device not supported. Please refer to the documentation"
    with_sanitizer(tmp_path, monkeypatch, memcheck=0, racecheck=refusal)
    assert run_sanitizers(stage)
    assert read(settings)["not_available"] == "compute-sanitizer says: Device not supported"


def test_a_machine_without_a_sanitizer(stage, settings, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert run_sanitizers(stage)
    assert read(settings)["not_available"].startswith("compute-sanitizer is not on PATH")


def test_an_engine_that_cannot_be_built_is_passed_over_in_the_bench(tmp_path, monkeypatch, exported):
    folders = [tmp_path / "fp16", tmp_path / "fp16-split"]
    for folder, options in zip(folders, ({}, {"split": True}), strict=True):
        shutil.copytree(exported(**options), folder)

    def build(folder, kind):
        if kind is KINDS["tensorrt"] and folder is folders[0]:
            raise BackendError("out of memory")

    monkeypatch.setattr(cases, "build_engine", build)
    monkeypatch.setattr(cases, "kinds_here", lambda device: list(KINDS.values()))
    why = {}
    found = [stages._backends(folder, "cuda", why) for folder in folders]
    assert found == [("onnxruntime", "tensorrt-rtx"), ("tensorrt", "tensorrt-rtx")]
    assert why == {"fp16: tensorrt": "out of memory"}


def test_each_model_is_timed_before_the_next_ones_engines_are_built(stage, settings, tmp_path, monkeypatch):
    folders, done = [tmp_path / name for name in ("fp16", "fp32")], []

    def run_bench(plan, say, passed_over):
        done.append(([folder.name for folder in plan.models], plan.backends, plan.peers))
        if plan.models == (folders[0],) and plan.backends:
            raise BackendError("the GPU stopped")
        return []

    monkeypatch.setattr(cases, "export_models", lambda stage, precision: [tmp_path / precision])
    monkeypatch.setattr(stages, "_backends", lambda folder, *_: done.append(folder.name) or ("onnxruntime",))
    monkeypatch.setattr("salema.benchmarks.speed.bench.run_bench", run_bench)
    assert not stages.bench(stage)
    assert done[0] == (["fp16", "fp32"], (), ("pytorch",))
    assert done[1:] == [
        *("fp16", (["fp16"], ("onnxruntime",), ("pytorch",))),
        *("fp32", (["fp32"], ("onnxruntime",), ("pytorch",))),
    ]
    assert read(settings)["passed_over"] == {"fp16": "the GPU stopped"}


def test_parity_fails_for_a_backend_that_differs_or_stops_and_the_others_are_compared(
    stage, settings, monkeypatch, exported, model
):
    def opener(folder):
        return lambda *_, **__: open_session(folder, "onnxruntime", "cpu")

    def stops(*_):
        session = open_session(model, "onnxruntime", "cpu")
        monkeypatch.setattr(session, "step", lambda *_: 1 / 0)
        return session

    def refuses():
        raise BackendError("no GPU")

    ways = {"stopping": stops, "other": opener(exported(alpha=0.3)), "lacking": refuses, "ours": opener(model)}
    monkeypatch.setattr(cases, "openers", lambda *_, **__: ways)
    monkeypatch.setattr(cases, "export_models", lambda *_: [model])
    monkeypatch.setattr(stages, "PRECISIONS", ("fp32",))
    assert not stages.parity(stage)
    found = read(settings)
    assert list(found["fp32"]["parity"]) == ["other", "ours"]
    assert list(found["fp32"]["speed"]) == ["other", "ours"]
    assert found["fp32"]["passed_over"] == {"lacking": "no GPU"}
    stopped, differs = found["failed"]
    assert stopped == "fp32, stopping: ZeroDivisionError: division by zero"
    assert differs.startswith("fp32, other: a map differs by 0.")
    ways.pop("stopping"), ways.pop("other")
    assert stages.parity(stage)


def test_a_stage_that_fails_records_why_and_what_it_has(settings, monkeypatch):
    def fails(error):
        def stage(stage):
            stage.keep(so_far=[1])
            raise error

        return stage

    monkeypatch.setitem(stages.STAGES, "known", fails(BackendError("no driver")))
    monkeypatch.setitem(stages.STAGES, "unforeseen", fails(KeyError("a bug")))
    assert not stages.run("known", settings)
    assert not stages.run("unforeseen", settings)
    known, unforeseen = read(settings, "known"), read(settings, "unforeseen")
    assert (known["ok"], known["error"], known["so_far"]) == (False, "no driver", [1])
    assert (unforeseen["ok"], unforeseen["error"], unforeseen["so_far"]) == (False, "KeyError: 'a bug'", [1])
    assert "in stage" in unforeseen["where"]
    assert known["environment"]["python"]


def test_a_stage_that_outlasts_its_limit_or_crashes_is_recorded_and_the_next_one_runs(cli, tmp_path, monkeypatch):
    options = ("--out", tmp_path, "--device", "cpu", "--only", "parity", "--only", "sanitizers")
    ran = cli(main, *options, "--stage-seconds", 0.05)
    assert ran.code == 1
    assert f"gpu-check: failed: parity, sanitizers; see the files in {tmp_path}" in ran.err
    for name in ("parity", "sanitizers"):
        found = json.loads((tmp_path / f"{name}.json").read_text())
        assert (found["ok"], found["error"]) == (False, "it was ended at its limit of time")
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho $NVIDIA_TF32_OVERRIDE > {tmp_path}/tf32\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert cli(main, *options).code == 1
    assert json.loads((tmp_path / "parity.json").read_text())["error"] == "its process ended with SIGSEGV"
    assert (tmp_path / "tf32").read_text() == "0\n"
