import csv
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from eval_maps import predict, scored
from synthetic import write_dataset

from salema.benchmarks.scores.cli import main


@pytest.mark.parametrize(
    ("where", "change", "sentence"),
    [
        ("maps", lambda i: i[:-2, :-2], "0002.png: is 64x48, and "),
        ("fixation", lambda i: np.where(i > 0, np.arange(64) * 4, 0), "0002.png: is no fixation map: it holds "),
        ("fixation", None, "0002.png: can't be read as an image"),
    ],
)
def test_broken_ground_truth_is_refused_by_name(cli, tmp_path, where, change, sentence):
    made = write_dataset(tmp_path / "data", "UCF-sports")
    pred = predict(made, tmp_path / "pred")
    file = made.truth / made.videos[1] / where / "0002.png"
    if change is None:
        file.write_bytes(b"no image")
    else:
        cv2.imwrite(str(file), change(cv2.imread(str(file), cv2.IMREAD_UNCHANGED)))
    out = tmp_path / "scores.json"
    ran = cli(main, "--dataset", "UCF-sports", "--gt", made.truth, "--pred", pred, "--json", out, "--strict")
    assert ran.code == 1
    assert sentence in ran.err
    assert f"{made.videos[1]}/" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert ran.out == ""
    assert not out.exists()


def break_some_files(made, pred, other):
    """Damages files of both sides in four frames."""
    first, second, third, _ = made.videos
    (pred / first / "0002.png").write_bytes(b"no image")
    (made.truth / second / "fixation/0003.png").write_bytes(b"")
    (made.truth / second / "maps/0003.png").write_bytes(b"")
    (made.truth / third / "maps/0001.png").unlink()
    (made.truth / third / "maps/0001.png").symlink_to("gone")
    os.mkfifo(other / third / "9.png")
    (other / third / "9.png").rename(other / third / "0004.png")


def test_unreadable_files_are_left_out_and_said_at_the_end(cli, tmp_path):
    """The scores are those of a dataset without these frames."""
    made = write_dataset(tmp_path / "data", "UCF-sports", frames=4)
    draw = np.random.default_rng(1)
    pred = predict(made, tmp_path / "pred", lambda d: (d // 2 + draw.integers(0, 128, d.shape)).astype(np.uint8))
    other = predict(made, tmp_path / "other", lambda density: density.T.copy())
    first, second, third, _ = made.videos
    break_some_files(made, pred, other)
    files = ("--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv")
    arguments = ["--dataset", "UCF-sports", "--gt", made.truth, "--pred", pred, "--compare", other]
    arguments += ["--naming", "groundtruth"]
    ran = cli(main, *arguments, "--protocol", "exact", *files)
    assert ran.code == 1
    gone = [f"{first}/0002", f"{second}/0003", f"{third}/0001", f"{third}/0004"]
    none = "can't be read as an image; give a whole PNG, JPEG, BMP, TIFF or WebP"
    assert ran.err.splitlines()[-5:] == [
        f"salema-eval: {pred}/{first}/0002.png: {none}",
        f"salema-eval: {made.truth}/{second}/fixation/0003.png: {none}",
        f"salema-eval: {made.truth}/{third}/maps/0001.png: can't be read (No such file or directory)",
        f"salema-eval: {other}/{third}/0004.png: is no ordinary file; copy what it gives into one",
        "salema-eval: 4 files are at fault, and what they belong to is left out; the rest is scored",
    ]
    assert f"note: pred: 4 frames left out, for what could not be read: {', '.join(gone)}" in ran.err.splitlines()
    found = json.loads((tmp_path / "s.json").read_text())
    assert list(found["failed"]) == gone
    assert found["models"][0]["videos"][third]["failed"] == ["0001", "0004"]
    assert found["models"][0]["frames"] == found["models"][1]["frames"] == 12
    with (tmp_path / "s.csv").open(newline="") as file:
        assert [row["failed"] for row in csv.DictReader(file)][:4] == ["1", "1", "2", "0"]
    for root in (made.truth, pred, other):
        for name in gone:
            for path in root.rglob(f"{name.split('/')[0]}/**/{name.split('/')[1]}.png"):
                path.unlink()
    clean = cli(main, *arguments, "--protocol", "exact", "--json", tmp_path / "clean.json")
    assert clean.code == 0, clean.err
    for got, expected in zip(found["models"], json.loads((tmp_path / "clean.json").read_text())["models"], strict=True):
        assert got["frames"] == expected["frames"]
        for metric in ("nss", "cc", "sim", "auc_judd"):  # s-AUC takes the fixations of frames whose map is damaged
            assert got["mean_over_videos"][metric] == expected["mean_over_videos"][metric]


@pytest.mark.parametrize("protocol", ["salema", "dhf1k"])
def test_a_file_of_a_video_that_is_only_drawn_from_may_be_damaged_too(cli, tmp_path, protocol):
    made = write_dataset(tmp_path / "data", "DHF1K", frames=2)
    pred = predict(made, tmp_path / "pred")
    damaged = made.truth / made.videos[3] / "fixation/0001.png"
    damaged.write_bytes(b"")
    arguments = ("--dataset", "DHF1K", "--gt", made.truth, "--pred", pred, "--end", 2, "--protocol", protocol)
    ran = cli(main, *arguments)
    assert ran.code == 1
    said = "salema-eval: 1 file is at fault, and what it belongs to is left out; the rest is scored"
    assert ran.err.splitlines()[-1] == said
    assert str(damaged) in ran.err
    assert "4 frames of 2 videos scored" in ran.err
    assert cli(main, *arguments, "--strict").err.startswith(f"salema-eval: {damaged}: can't be read as an image")


def test_where_nothing_is_left_to_score_there_are_no_scores(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "other", videos=2, frames=1)
    pred = predict(made, tmp_path / "pred")
    for video in made.videos:
        (pred / video / "0001.png").write_bytes(b"")
    ran = cli(main, "--dataset", "other", "--gt", made.truth, "--pred", pred, "--json", tmp_path / "s.json")
    assert ran.code == 1
    assert "clip 1/0001.png: can't be read as an image" in ran.err
    assert ran.err.endswith("; there is nothing else to score\n")
    assert not (tmp_path / "s.json").exists()


def test_a_damaged_frame_ends_its_video_for_a_running_model(cli, model, tmp_path):
    made = write_dataset(tmp_path / "data", "DHF1K", videos=2, frames=4)
    (tmp_path / "data/frames/1/0003.png").write_bytes(b"no image")
    out = tmp_path / "s.json"
    source = ("--model", model, "--src", made.source)
    ran = cli(main, "--dataset", "DHF1K", *source, "--protocol", "exact", "--json", out)
    assert ran.code == 1
    assert "frames/1/0003.png: can't be read as an image" in ran.err
    videos = json.loads(out.read_text())["models"][0]["videos"]
    assert [(video["frames"], video["failed"]) for video in videos.values()] == [(2, ["0003", "0004"]), (4, [])]
    assert cli(main, "--dataset", "DHF1K", *source, "--strict").out == ""


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_half_an_image_is_one_sentence_with_no_word_of_opencvs(tmp_path, suffix):
    made = write_dataset(tmp_path / "data", "other", videos=2)
    pred = predict(made, tmp_path / "pred")
    whole = pred / made.videos[0] / "0002.png"
    file = whole.with_suffix(suffix)
    cv2.imwrite(str(file), cv2.imread(str(whole), cv2.IMREAD_UNCHANGED))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    if file != whole:
        whole.unlink()
    command = [sys.executable, "-c", "from salema.benchmarks.scores.cli import main; main()", "--dataset", "other"]
    arguments = [*command, "--gt", made.truth, "--pred", pred, "--strict"]
    ran = subprocess.run(arguments, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr == f"salema-eval: {file}: breaks off; copy or make it anew\n"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: np.where(d > 0, np.nan, 0), "0002.tiff: holds NaN or infinity at 1536 pixels"),
        (lambda d: d - 200.0, "0002.tiff: holds negative numbers, down to -200"),
        (lambda d: d / 255 * np.float32(2e30), "0002.tiff: has 2e+30 as its greatest value; scale the map"),
        (lambda d: d / 255 * np.float32(2e-31), "0002.tiff: has 2e-31 as its greatest value; scale the map"),
    ],
)
def test_numbers_that_are_no_saliency_are_refused_by_name(cli, tmp_path, change, sentence):
    made = write_dataset(tmp_path / "data", "other")
    pred = predict(made, tmp_path / "pred")
    file = pred / made.videos[2] / "0002.png"
    density = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    file.unlink()
    cv2.imwrite(str(file.with_suffix(".tiff")), change(density.astype(np.float32)).astype(np.float32))
    ran = cli(main, "--dataset", "other", "--gt", made.truth, "--pred", pred)
    assert ran.code == 1
    assert f"{made.videos[2]}/{sentence}" in ran.err


def test_the_depth_of_a_map_changes_nothing(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "other")
    draw = np.random.default_rng(2)
    noise = draw.integers(0, 256, (48, 64)).astype(np.uint8)
    found = []
    for name, change in (("8", lambda d: noise), ("16", lambda d: noise.astype(np.uint16) * 257)):
        pred = predict(made, tmp_path / name, change)
        found.append(scored(cli, made, "other", tmp_path, "--pred", pred, "--protocol", "exact")["models"][0])
    assert found[0]["mean_over_frames"] == pytest.approx(found[1]["mean_over_frames"], abs=1e-9)
