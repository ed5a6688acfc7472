"""What a run leaves on disk, and who may go on with it."""

import json
import multiprocessing
import time

import pytest
import torch

from salema.runtime.errors import UsageError
from salema.training.log import LOG, Log, read_log, smoothed
from salema.training.state import check_settings, in_step_order, sole_run

SETTINGS = {
    "src": "a",
    "init": "b.pt",
    "imgsz_hw": [48, 64],
    "thaw": True,
    "start": None,
    "trained_on": "1",
    "init_sha256": "2",
}


@pytest.fixture
def begun(tmp_path):
    check_settings(tmp_path, SETTINGS, resume=False)
    return tmp_path


def test_a_run_goes_on_where_its_data_have_moved(begun):
    check_settings(begun, SETTINGS | {"src": "elsewhere", "init": "elsewhere.pt"}, resume=True)


def test_a_run_of_an_older_version_goes_on(begun):
    check_settings(begun, SETTINGS | {"teacher_sha256": "9"}, resume=True)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"imgsz_hw": [96, 128]}, "was begun with --imgsz 48 64, not --imgsz 96 128"),
        ({"thaw": False}, "was begun with --thaw, not --no-thaw"),
        ({"start": 4}, "was begun with no --start, not --start 4"),
        ({"trained_on": "3"}, "was begun with other videos or photographs to train on"),
        ({"init_sha256": "3"}, "was begun with another checkpoint for --init"),
    ],
)
def test_other_settings_are_named_as_options(begun, changed, sentence):
    with pytest.raises(UsageError, match=sentence):
        check_settings(begun, SETTINGS | changed, resume=True)


def test_damaged_settings_are_named(begun):
    (begun / "settings.json").write_bytes(b"\0\0")
    with pytest.raises(UsageError, match=r"settings\.json: can't be read; begin another run"):
        check_settings(begun, SETTINGS, resume=True)


def test_a_run_that_left_nothing_is_begun_anew_with_other_options(begun):
    check_settings(begun, SETTINGS | {"thaw": False}, resume=False)
    assert json.loads((begun / "settings.json").read_text())["thaw"] is False
    (begun / "state.pt").write_bytes(b"")
    with pytest.raises(UsageError, match="holds a run; go on with it by --resume"):
        check_settings(begun, SETTINGS, resume=False)


def test_one_process_at_a_time_trains_in_a_folder(tmp_path):
    with sole_run(tmp_path), pytest.raises(UsageError, match="another process trains in it"), sole_run(tmp_path):
        pass
    with sole_run(tmp_path), sole_run(tmp_path / "other that is not there"):
        pass


def begin_and_wait(begun):
    begun.set()
    time.sleep(60)


def test_a_reader_that_outlives_its_run_holds_no_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    with sole_run(tmp_path):
        reader = context.Process(target=begin_and_wait, args=(begun,))
        reader.start()
    assert begun.wait(30)
    with sole_run(tmp_path):
        assert reader.is_alive()
    reader.kill()
    reader.join()


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_states_of_processes_are_kept_in_the_order_of_the_clips(processes):
    rows = torch.arange(12.0).reshape(6, 2)
    gathered = torch.cat([rows[rank::processes] for rank in range(processes)])
    assert torch.equal(in_step_order(gathered, processes), rows)


def test_a_log_shorter_than_was_known_is_not_filled_up(tmp_path):
    (tmp_path / LOG).write_text('{"step": 1}\n')
    log = Log(tmp_path, 100)
    log.add({"step": 2})
    log.keep()
    log.close()
    assert read_log(tmp_path) == [{"step": 1}, {"step": 2}]


def test_a_line_that_a_power_cut_broke_is_left_out(tmp_path):
    (tmp_path / LOG).write_bytes(b'{"step": 1}\n\0\0\0')
    assert read_log(tmp_path) == [{"step": 1}]


def test_the_curve_is_of_the_mean_of_50_steps():
    assert smoothed([2.0, 4.0]) == [2, 3]
    assert smoothed([100.0] + [0.0] * 50)[-2:] == [2, 0]
