"""The record of trials beside a model: shared by processes, for models of any name, and how to make one anew."""

import json
import tempfile
import threading

import pytest

from salema.runtime.backends import tuning
from salema.runtime.backends.opening import open_session
from salema.runtime.backends.tuning import CANDIDATES, RECORD_FILE, Record, Trial
from salema.runtime.files.scratch import scratch_folder
from salema.runtime.onnx_metadata import read_spec


@pytest.fixture
def folder(model, tmp_path, monkeypatch):
    """A model without a trial, which is short."""
    monkeypatch.setattr(tuning, "_LEAST_S", 0.01)
    (tmp_path / "model.onnx").write_bytes((model / "model.onnx").read_bytes())
    return tmp_path


def record_of(folder):
    return json.loads((folder / RECORD_FILE).read_text())


def test_two_that_start_at_once_make_one_trial(folder):
    said, reasons = [], []

    def start():
        with open_session(folder, device="cpu", say=said.append) as session:
            reasons.append(session.reason)

    starts = [threading.Thread(target=start) for _ in range(2)]
    for each in starts:
        each.start()
    for each in starts:
        each.join()
    assert sum("trying" in sentence for sentence in said) == 1
    assert len(reasons) == 2
    assert len(set(reasons)) == 1


def test_a_trial_in_a_temporary_folder_waits_for_nobody(folder, monkeypatch):
    """As a worker of a cluster makes it: `scratch_folder` locks its folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    said = []
    with scratch_folder() as scratch:
        (scratch / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
        with open_session(scratch, device="cpu", say=said.append):
            assert len(said) == 1
    assert said[0].startswith("auto: trying ")


def test_the_trials_of_others_meanwhile_are_kept(folder):
    records = [Record(folder, read_spec(folder / "model.onnx"), list(CANDIDATES), threads) for threads in (1, 2)]
    for record in records:
        assert record.find() is None
    for record in records:
        record.keep(Trial({"ncnn": 1.0}))
    assert len(record_of(folder)["trials"]) == 2


def test_a_kept_trial_that_passed_one_over_says_how_to_try_again(folder):
    with open_session(folder, device="cpu"):
        pass
    record = record_of(folder)
    next(iter(record["trials"].values()))["passed_over"] = {"ncnn": "ncnn passed over"}
    (folder / RECORD_FILE).write_text(json.dumps(record))
    with open_session(folder, device="cpu") as session:
        assert session.reason.endswith("; ncnn passed over; --retune tries again")


def test_a_model_of_another_name_has_its_own_trials(folder, exported):
    (folder / "nano.onnx").write_bytes((exported(precision="fp16") / "model.onnx").read_bytes())
    for name in ("model.onnx", "nano.onnx", "model.onnx"):
        with open_session(folder / name, device="cpu") as session:
            assert " ms, " in session.reason
            assert "can't be used" not in session.reason
    assert (folder / f"nano.{RECORD_FILE}").is_file()


def test_where_no_trial_is_made_retuning_says_so(folder, exported):
    said = []
    with open_session(exported(split=True), device="cpu", retune=True, say=said.append):
        pass
    assert said == ["--retune: no trial is made here: only onnxruntime runs this model"]
