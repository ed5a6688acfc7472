"""The trial of the backends on this CPU: what it takes, what it keeps, and when it is made anew."""

import json
import time

import numpy as np
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from salema.runtime import cpu, load
from salema.runtime.backends import openvino_session as openvino
from salema.runtime.backends import ort_session as onnxruntime
from salema.runtime.backends import tuning
from salema.runtime.backends.opening import open_session
from salema.runtime.backends.tuning import CANDIDATES, RECORD_FILE, Record, machine_kind, try_all
from salema.runtime.cli.run import main
from salema.runtime.errors import BackendError
from salema.runtime.onnx_metadata import read_spec


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(tuning, "_LEAST_S", 0.01)


@pytest.fixture
def folder(model, tmp_path):
    """A model without a trial."""
    (tmp_path / "model.onnx").write_bytes((model / "model.onnx").read_bytes())
    return tmp_path


def record_of(folder):
    return json.loads((folder / RECORD_FILE).read_text())


def changed(folder, change):
    record = record_of(folder)
    change(record)
    (folder / RECORD_FILE).write_text(json.dumps(record))


class Slowed:
    """A session whose steps take a while longer, or whose map is brighter."""

    def __init__(self, session, wait_s=0.0, brighter=0.0):
        self.real, self._wait_s, self._brighter, self.is_open = session, wait_s, brighter, True
        self.spec, self.reason, self.from_host = session.spec, "", session.from_host

    def step(self, *arguments):
        time.sleep(self._wait_s)
        saliency, states = self.real.step(*arguments)
        return saliency + np.float32(self._brighter), states

    def close(self):
        self.is_open = False
        self.real.close()


def test_the_fastest_is_taken_and_the_others_are_closed(model):
    waits_s, opened = {"onnxruntime": 0.06, "openvino": 0.02, "ncnn": 0.1}, {}

    def open_model(backend):
        opened[backend] = Slowed(open_session(model, backend, "cpu"), waits_s[backend])
        return opened[backend]

    session, trial = try_all(list(CANDIDATES), open_model)
    assert session is opened["openvino"]
    assert {name: each.is_open for name, each in opened.items()} == {
        "onnxruntime": False, "openvino": True, "ncnn": False
    }  # fmt: skip
    assert trial.order == ["openvino", "onnxruntime", "ncnn"]
    assert all(trial.step_ms[name] >= 1000 * wait_s for name, wait_s in waits_s.items())
    assert str(trial).startswith(f"openvino {trial.step_ms['openvino']:.3g} ms, onnxruntime ")
    session.close()


def test_a_backend_that_gives_another_map_is_not_taken(model):
    def open_model(backend):
        brighter = {"onnxruntime": 0.0, "openvino": 2e-4, "ncnn": 5e-5}[backend]
        return Slowed(open_session(model, backend, "cpu"), 0.01 * (backend == "onnxruntime"), brighter)

    session, trial = try_all(list(CANDIDATES), open_model)
    session.close()
    assert set(trial.step_ms) == {"onnxruntime", "ncnn"}
    assert str(trial).endswith("; openvino passed over: its map differs by 0.0002 from onnxruntime's")


def test_a_nan_of_the_first_backend_is_not_hidden_by_a_faster_one(model):
    def open_model(backend):
        added = np.nan if backend == "onnxruntime" else 0.0
        return Slowed(open_session(model, backend, "cpu"), 0.01 * (backend == "onnxruntime"), added)

    session, trial = try_all(list(CANDIDATES), open_model)
    session.close()
    assert trial.order == ["onnxruntime"]
    assert "openvino passed over: its map differs by nan from onnxruntime's" in str(trial)


class Failing:
    """A library's own session whose step fails, with what it raises."""

    def __init__(self, real, error):
        self._real, self._error = real, error

    def __getattr__(self, name):
        if name in {"infer", "run_with_iobinding"}:
            raise self._error
        return getattr(self._real, name)


@pytest.mark.parametrize(
    ("failing", "error", "sentence"),
    [
        (
            "openvino",
            RuntimeError("Exception from src/inference.cpp:223:\nnot implemented"),
            f"OpenVINO {openvino.VERSION} can't run the model (not implemented); take another --backend",
        ),
        (
            "onnxruntime",
            ort_errors.NotImplemented("[ONNXRuntimeError] : 9"),
            f"ONNX Runtime {onnxruntime.VERSION} can't run the model ([ONNXRuntimeError] : 9); take another --backend",
        ),
    ],
)
def test_a_backend_that_opens_and_cannot_step_is_passed_over_and_closed(model, failing, error, sentence):
    opened = {}

    def open_model(backend):
        opened[backend] = session = Slowed(open_session(model, backend, "cpu"))
        if backend == failing:
            inner = "_request" if backend == "openvino" else "_session"
            setattr(session.real, inner, Failing(getattr(session.real, inner), error))
        return session

    session, trial = try_all(list(CANDIDATES), open_model)
    session.close()
    assert set(trial.step_ms) == set(CANDIDATES) - {failing}
    assert trial.passed_over == {failing: f"{failing} passed over: {sentence}"}
    assert not any(each.is_open for each in opened.values())


def test_without_onnx_runtime_the_first_that_works_is_what_others_are_held_to(model):
    def open_model(backend):
        return Slowed(open_session(model, backend, "cpu"), brighter=2e-4 * (backend == "ncnn"))

    session, trial = try_all(["openvino", "ncnn"], open_model)
    session.close()
    assert set(trial.step_ms) == {"openvino"}
    assert trial.passed_over == {"ncnn": "ncnn passed over: its map differs by 0.0002 from openvino's"}


def test_where_none_works_all_reasons_are_told():
    def open_model(backend):
        raise BackendError(f"{backend} is broken")

    with pytest.raises(
        BackendError, match="openvino passed over: openvino is broken; ncnn passed over: ncnn is broken"
    ):
        try_all(["openvino", "ncnn"], open_model)


def test_the_trial_is_made_once_and_kept_beside_the_model(folder):
    said = []
    with open_session(folder, device="cpu", say=said.append) as session:
        reason, backend = session.reason, session.backend
    assert said == ["auto: trying onnxruntime, openvino, ncnn for a moment, once for this machine"]
    ((machine, trial),) = record_of(folder)["trials"].items()
    assert set(trial["step_ms"]) == set(CANDIDATES)
    assert all(f"{name} " in machine for name in CANDIDATES)
    assert backend == min(trial["step_ms"], key=trial["step_ms"].get)
    assert reason == ", ".join(
        f"{name} {ms:.3g}" + " ms" * (name == backend)
        for name, ms in sorted(trial["step_ms"].items(), key=lambda item: item[1])
    )
    with open_session(folder, device="cpu", say=said.append) as session:
        assert (session.reason, session.backend) == (reason, backend)
    assert len(said) == 1


def test_the_record_decides_until_the_next_tuning(folder):
    with open_session(folder, device="cpu"):
        pass
    for backend in CANDIDATES:

        def prefer(record, backend=backend):
            (trial,) = record["trials"].values()
            trial["step_ms"] = {name: 0.001 if name == backend else 1000.0 for name in CANDIDATES}

        changed(folder, prefer)
        with load(folder, device="cpu") as stream:
            assert stream.session.backend == backend
    with open_session(folder, device="cpu", retune=True) as session:
        assert "1e+03" not in session.reason
    assert max(next(iter(record_of(folder)["trials"].values()))["step_ms"].values()) < 1000


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(version=99),
        lambda record: record.update(model="0" * 64),
        lambda record: record.update(trials="x"),
        lambda record: next(iter(record["trials"].values()))["step_ms"].update(ncnn=-1),
        lambda record: next(iter(record["trials"].values()))["step_ms"].update(abacus=1.0),
        lambda record: next(iter(record["trials"].values()))["step_ms"].clear(),
        lambda record: next(iter(record["trials"].values())).pop("step_ms"),
    ],
)
def test_a_wrong_record_is_ignored_with_a_note(folder, change):
    with open_session(folder, device="cpu"):
        pass
    changed(folder, change)
    with open_session(folder, device="cpu") as session:
        assert f"; {RECORD_FILE} can't be used (" in session.reason
        assert session.reason.endswith("), so it was tried anew")
    with open_session(folder, device="cpu") as session:
        assert RECORD_FILE not in session.reason


def test_a_file_that_is_no_record_is_ignored_too(folder):
    for text in ("", "[]", '{"version": 1}', "\x00"):
        (folder / RECORD_FILE).write_text(text)
        record = Record(folder, read_spec(folder / "model.onnx"), list(CANDIDATES), 1)
        assert record.find() is None
        assert "can't be used" in record.note


def test_other_machines_and_threads_have_trials_of_their_own(folder, monkeypatch):
    with open_session(folder, device="cpu", threads=1):
        pass
    monkeypatch.setattr(tuning, "cpu_fact", lambda name: f"another {name}")
    with open_session(folder, device="cpu", threads=1) as session:
        none = f"; {RECORD_FILE} has no trial of this CPU with 1 thread and these versions, so it was tried anew"
        assert session.reason.endswith(none)
    with open_session(folder, device="cpu", threads=3) as session:
        assert ", 3 threads" in session.runs_on
        assert f"; {RECORD_FILE} has no trial of this CPU with 3 threads and" in session.reason
    assert len(record_of(folder)["trials"]) == 3


def test_arm_cpus_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    kinds = set()
    for part in ("0xd0b", "0xd42"):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: {part}\n")
        kinds.add(machine_kind(["ncnn"], 4))
    assert len(kinds) == 2


def test_a_record_that_cannot_be_kept_is_said(folder, monkeypatch):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tuning, "write_bytes", refuse)
    with open_session(folder, device="cpu") as session:
        assert session.reason.endswith("; the trial can't be kept, so each start makes it: Read-only file system")
    assert not (folder / RECORD_FILE).exists()


def test_the_command(cli, folder, small_clip, tmp_path):
    arguments = (small_clip, "--model", folder, "-o", tmp_path / "o.mp4", "--max-frames", 1, "--device", "cpu")
    ran = cli(main, *arguments, "--threads", 1)
    assert ran.code == 0
    assert ran.err.splitlines()[0] == "auto: trying onnxruntime, openvino, ncnn for a moment, once for this machine"
    assert ", 1 thread (auto: " in ran.err
    assert "trying" not in cli(main, *arguments, "--threads", 1).err
    assert "trying" in cli(main, *arguments, "--threads", 1, "--retune").err
    refused = cli(main, *arguments, "--retune", "--backend", "ncnn")
    assert refused.code == 2
    assert "--retune --backend ncnn: only auto tries backends; leave one of them out" in refused.err
    refused = cli(main, *arguments, "--threads", 0)
    assert refused.code == 2
    assert "--threads 0: give 1 to 1024" in refused.err
