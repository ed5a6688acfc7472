import json
import os
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
from frame_folders import maps_under, names_under, numbered, write_frames

from salema.runtime import load
from salema.runtime.cli import opening as cli_opening
from salema.runtime.cli.opening import Announced, Opening
from salema.runtime.cli.run import main
from salema.runtime.cli.run_report import report_dataset
from salema.runtime.errors import BackendError, UsageError
from salema.runtime.run.dataset import Here, is_finished, run_dataset
from salema.runtime.run.dataset_layouts import list_videos
from salema.runtime.run.summary import Summary
from salema.runtime.sources.image_reader import read_image


def test_the_model_is_opened_once_for_a_dataset(cli, model, tmp_path, monkeypatch):
    write_frames(tmp_path / "src/v", numbered(1))
    opened = []

    def counting(*arguments, **options):
        opened.append(options)
        return load(*arguments, **options)

    monkeypatch.setattr(cli_opening, "load", counting)
    ran = cli(main, "--dataset", "other", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)
    assert (ran.code, len(opened)) == (0, 1), ran.err
    assert ran.out == f"1 of 1 video, 1 map -> {tmp_path / 'dst'}\n"


def test_a_model_opened_ahead_is_closed_where_nobody_takes_it(model):
    with Announced(Opening(model)) as open_stream:
        assert open_stream.ahead().architecture == "SalEMA30"
        kept = open_stream._ahead
    with pytest.raises(UsageError, match="the model is closed"):
        kept.step(np.zeros((8, 8, 3), np.uint8))


def test_maps_are_the_published_ones_and_the_state_starts_anew(cli, model, tmp_path):
    for name, seed in (("a", 0), ("b", 3)):
        write_frames(tmp_path / "src" / name, numbered(4), size=(90, 120), seed=seed)
    ran = cli(main, "--dataset", "other", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)
    assert ran.code == 0, ran.err
    for name in ("a", "b"):
        with load(model) as stream:
            for count in range(1, 5):
                image = cv2.imread(str(tmp_path / f"src/{name}/{count:04d}.png"))
                raw = stream.step(cv2.resize(image, (96, 64), interpolation=cv2.INTER_AREA))
                expected = np.floor((raw - raw.min()) / (raw.max() - raw.min()) * np.float32(255) + np.float32(0.5))
                path = tmp_path / f"dst/seeded-16_predictions/{name}/{count:05d}.png"
                found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
                np.testing.assert_array_equal(found, expected)


def test_where_all_videos_fail_no_others_are_told_of(cli, model, tmp_path):
    (tmp_path / "src/a").mkdir(parents=True)
    (tmp_path / "src/a/1.png").write_bytes(b"")
    ran = cli(main, "--dataset", "other", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)
    assert ran.code == 1
    assert ran.err.endswith("salema-run: 1 of 1 video failed\n")


@pytest.mark.parametrize("jobs", [1, 3])
def test_one_failure_is_not_the_end_of_the_others(cli, model, tmp_path, jobs):
    for name in "abcde":
        write_frames(tmp_path / "src" / name, numbered(3))
    (tmp_path / "src/b/0002.png").write_bytes(b"no image")
    (tmp_path / "src/d/0001.png").write_bytes(b"")
    arguments = ("--dataset", "other", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)
    ran = cli(main, *arguments, "--jobs", jobs)
    assert ran.code == 1
    assert "b/0002.png: can't be read as an image" in ran.err
    assert "d/0001.png: can't be read as an image" in ran.err
    assert ran.err.endswith("salema-run: 2 of 5 videos failed; the others are done\n")
    assert "3 of 5 videos, 9 maps" in ran.out
    assert len(maps_under(tmp_path / "dst")) == 10  # and the frame before b's broken one


@pytest.mark.parametrize("jobs", [1, 3])
def test_with_strict_the_first_that_fails_is_the_last(cli, model, tmp_path, jobs):
    for name in "abcdefgh":
        write_frames(tmp_path / "src" / name, numbered(3))
    (tmp_path / "src/b/0002.png").write_bytes(b"no image")
    arguments = ("--dataset", "other", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)
    arguments += ("--backend", "onnxruntime")  # it opens in a moment, so that the first videos run side by side
    ran = cli(main, *arguments, "--jobs", jobs, "--strict")
    assert ran.code == 1
    assert "b/0002.png: can't be read as an image" in ran.err
    assert ran.err.endswith("salema-run: 1 of 8 videos failed; stopped there, as --strict asks; go on with --resume\n")
    assert not (tmp_path / "dst/seeded-16_predictions/h").exists()
    write_frames(tmp_path / "b", numbered(3))
    (tmp_path / "b/0002.png").replace(tmp_path / "src/b/0002.png")
    ran = cli(main, *arguments, "--resume", "--strict")
    assert ran.code == 0, ran.err
    assert len([name for name in names_under(tmp_path / "dst") if name.endswith(".png")]) == 24


def test_resume_does_not_believe_maps_of_another_size(cli, model, tmp_path):
    write_frames(tmp_path / "src/v", numbered(2))
    arguments = ("--dataset", "other", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)
    assert cli(main, *arguments).code == 0
    ran = cli(main, *arguments, "--resume", "--map-size", "source")
    assert ran.out.startswith("1 of 1 video, 2 maps")
    assert "network, now source; it is run again" in ran.err
    found = cv2.imread(str(tmp_path / "dst/seeded-16_predictions/v/00001.png"), cv2.IMREAD_UNCHANGED)
    assert found.shape == (48, 64)
    assert cli(main, *arguments, "--resume", "--map-size", "source").out.startswith("0 of 1 video, 0 maps")


def test_resume_skips_videos_whose_maps_are_all_there_and_whole(cli, model, tmp_path):
    for name in "abc":
        write_frames(tmp_path / "src" / name, numbered(2))
    arguments = ("--dataset", "other", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model)
    assert cli(main, *arguments).code == 0
    out = tmp_path / "dst/seeded-16_predictions"
    whole = {name: (out / name / "00001.png").stat().st_mtime_ns for name in "abc"}
    (out / "b/00002.png").unlink()
    data = (out / "c/00002.png").read_bytes()
    (out / "c/00002.png").write_bytes(data[:-5])
    ran = cli(main, *arguments, "--resume", "--json")
    assert ran.code == 0
    summary = json.loads(ran.out)
    assert (summary["videos"], summary["skipped"], summary["frames"]) == (2, 1, 4)
    assert (out / "c/00002.png").read_bytes() == data
    assert (out / "a/00001.png").stat().st_mtime_ns == whole["a"]
    assert (out / "b/00001.png").stat().st_mtime_ns != whole["b"]


def test_sizes_may_differ_and_grey_and_transparent_images_are_read(tmp_path, model):
    folder = tmp_path / "src/v"
    write_frames(folder, ["1.png"], size=(48, 64))
    cv2.imwrite(str(folder / "2.png"), np.full((30, 41), 7, np.uint8))
    cv2.imwrite(str(folder / "3.png"), np.full((64, 96, 4), 200, np.uint8))
    cv2.imwrite(str(folder / "4.png"), np.full((5, 4, 3), 40_000, np.uint16))
    assert read_image(folder / "2.png").tolist()[0][0] == [7, 7, 7]
    assert read_image(folder / "3.png").shape == (64, 96, 3)
    assert read_image(folder / "4.png").dtype == np.uint8
    videos = list_videos("other", tmp_path / "src", tmp_path / "dst", "w")
    summary = run_dataset(videos, Here(lambda: load(model)))
    assert (summary.frames, summary.failed) == (4, {})
    assert is_finished(videos[0])


def test_a_stop_leaves_videos_unfinished_and_says_how_to_go_on(model, tmp_path):
    for name in "abc":
        write_frames(tmp_path / "src" / name, numbered(5))
    videos = list_videos("other", tmp_path / "src", tmp_path / "dst", "w")
    stop, seen = threading.Event(), []

    def progress(more_videos, more_frames):
        seen.append(more_frames)
        if sum(seen) == 7:
            stop.set()

    summary = run_dataset(videos, Here(lambda: load(model)), stop=stop, progress=progress)
    assert summary.interrupted
    assert (summary.videos, summary.frames) == (1, 7)
    assert [is_finished(video) for video in videos] == [True, False, False]


def test_ctrl_c_ends_the_command_with_130(model, tmp_path):
    write_frames(tmp_path / "src/v", numbered(3000), size=(16, 16))
    code = "from salema.runtime.cli.run import main; main()"
    arguments = ["--dataset", "other", "--src", tmp_path / "src", "--dst", tmp_path / "dst", "--model", model]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "dst/seeded-16_predictions/v/00005.png").exists() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "salema-run: interrupted; go on with --resume" in err
    assert "0 of 1 video, " in out
    assert not list((tmp_path / "dst").rglob(".*"))


_OTHER = ("--dataset", "other", "--src", "s", "--dst", "d")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ((), 2, "give either sources (a video file, say), or --dataset NAME"),
        (("v.mp4", "--dataset", "other"), 2, "give either sources (a video file, say), or --dataset NAME"),
        (("--dataset", "other", "--src", "s"), 2, "--dataset other: give --src DIR and --dst DIR"),
        (("--dataset", "LEDOV", "--src", "s", "--dst", "d"), 2, "--dataset LEDOV: not one of DHF1K, Hollywood-2"),
        (("--dataset", "other", "--src", "s", "--dst", "d", "--naming", "x"), 2, "--naming x: not one of published"),
        (("--dataset", "other", "--src", "s", "--dst", "d", "--start", 1), 2, "--start and --end are for DHF1K"),
        *(
            ((*_OTHER, *options), 2, f"{options[0]}: not for --dataset other; leave it out")
            for options in (
                ("--map-bits", 16),
                ("--map-bits", 8),
                ("--normalise", "none"),
                ("--npz", "x.npz"),
                ("--no-video",),
                ("--max-frames", 3),
                ("--time-aware",),
                ("--output", "x.mp4"),
            )
        ),
        ((*_OTHER, "--fps", 1, "--loop", 2), 2, "--loop and --fps: not for --dataset other; leave them out"),
        (("v.mp4", "--src", "s", "--naming", "published"), 2, "--src and --naming: for --dataset only; leave them"),
        (("--recover", ".", "--jobs", 2), 2, "--jobs: not for --recover ., which runs nothing; leave it out"),
        (("--recover", ".", "v.mp4"), 2, "--recover .: give no sources with it; nothing is run"),
        (("--dataset", "other", "--src", "absent", "--dst", "d"), 1, "absent: no such folder"),
        (("--dataset", "UCF-sports", "--src", ".", "--dst", "d"), 1, "holds none of the UCF-sports videos asked for"),
        (("--dataset", "other", "--src", ".", "--dst", "d"), 1, ".: holds no video (expected: images in <video>/)"),
    ],
)
def test_usage(cli, model, tmp_path, monkeypatch, arguments, code, sentence):
    monkeypatch.chdir(tmp_path)
    ran = cli(main, *arguments, *(() if "--recover" in arguments else ("--model", model)))
    assert ran.code == code
    assert sentence in ran.err
    assert names_under(tmp_path) == []


def test_a_model_that_cannot_be_opened_is_one_error(tmp_path):
    write_frames(tmp_path / "src/v", numbered(2))
    videos = list_videos("other", tmp_path / "src", tmp_path / "dst", "w")

    def refuse():
        raise BackendError("no such device")

    with pytest.raises(BackendError, match="no such device"):
        run_dataset(videos, Here(refuse, 4))
    with pytest.raises(UsageError, match="not one of"):
        list_videos("nothing", tmp_path, tmp_path, "w")


def test_a_run_that_is_cut_off_is_summed_up_first(tmp_path, capsys):
    for name in "ab":
        write_frames(tmp_path / "src" / name, numbered(2))
    videos = list_videos("other", tmp_path / "src", tmp_path / "dst", "w")

    def run_all(videos, *_):
        yield videos[0], Summary(2, 2, 1.0, 2.0, {}, None, 0, 0, 0.0, 0, interrupted=False, error=None)
        raise BackendError("no node is left")

    summary = run_dataset(videos, run_all)
    assert (summary.videos, summary.frames, summary.cut_off) == (1, 2, "no node is left")
    with pytest.raises(SystemExit) as ended:
        report_dataset(summary, 2, tmp_path / "dst", as_json=False)
    assert ended.value.code == 1
    assert capsys.readouterr() == (
        f"1 of 2 videos, 2 maps -> {tmp_path}/dst\n",
        "salema-run: no node is left; go on with --resume\n",
    )
