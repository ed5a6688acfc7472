import csv
import json
import subprocess
import sys

import cv2
import pytest
from eval_maps import predict
from limits import run_limited
from synthetic import write_dataset

from salema.benchmarks.scores.cli import main
from salema.runtime.errors import OutputError


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    made = write_dataset(tmp_path / "data", "other")
    pred = predict(made, tmp_path / "pred")
    out = tmp_path / "out"
    out.mkdir()
    code = "from salema.benchmarks.scores.cli import main; main()"
    arguments = ["--dataset", "other", "--gt", made.truth, "--pred", pred, "--json", out / "s.json"]
    ran = run_limited([sys.executable, "-c", code, *arguments], file_size=500, cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith(f"salema-eval: {out / 's.json'}: can't be written")
    assert list(out.iterdir()) == []
    assert "pred (mean over videos)" in ran.stdout  # the work is not lost


def test_a_file_that_cannot_be_written_keeps_the_others_from_nothing(cli, tmp_path, monkeypatch):
    made = write_dataset(tmp_path / "data", "other", videos=2)
    pred = predict(made, tmp_path / "pred")

    def full(path, _):
        raise OutputError(f"{path}: can't be written (disk full)")

    monkeypatch.setattr("salema.benchmarks.scores.report.write_json", full)
    files = ("--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv", "--plot", tmp_path / "s.png")
    ran = cli(main, "--dataset", "other", "--gt", made.truth, "--pred", pred, *files)
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == f"salema-eval: {tmp_path}/s.json: can't be written (disk full)"
    assert "note: pred: 6 frames of 2 videos scored" in ran.err.splitlines()
    assert (tmp_path / "s.csv").stat().st_size
    assert cv2.imread(str(tmp_path / "s.png")) is not None


def test_a_terminal_that_is_full_or_gone_does_not_lose_the_files(tmp_path):
    made = write_dataset(tmp_path / "data", "other", videos=2)
    pred = predict(made, tmp_path / "pred")
    command = [sys.executable, "-c", "from salema.benchmarks.scores.cli import main; main()", "--dataset", "other"]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        ran = subprocess.run(
            [*command, "--gt", made.truth, "--pred", pred, "--json", tmp_path / "s.json"],
            stdout=full,
            stderr=-1,
            text=True,
        )
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == "salema-eval: No space left on device"
    assert json.loads((tmp_path / "s.json").read_text())["models"][0]["frames"] == 6


def test_csv_or_json_on_standard_output(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = write_dataset(tmp_path / "data", "other", videos=2)
    pred = predict(made, tmp_path / "pred")
    ran = cli(main, "--dataset", "other", "--gt", made.truth, "--pred", pred, "--csv", "-")
    assert ran.code == 0, ran.err
    assert [row["video"] for row in csv.DictReader(ran.out.splitlines())] == ["clip 1", "clip 2"]
    assert "pred (mean over videos)" in ran.err
    ran = cli(main, "--dataset", "other", "--gt", made.truth, "--pred", pred, "--json", "-")
    assert list(json.loads(ran.out)["models"][0]["videos"]) == ["clip 1", "clip 2"]
    assert "pred (mean over videos)" in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "pred"]
    both = cli(main, "--dataset", "other", "--gt", made.truth, "--pred", pred, "--json", "-", "--csv", "-")
    assert (both.code, both.out) == (2, "")


@pytest.mark.filterwarnings("error")
def test_names_that_are_no_unicode_or_a_formula(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "other", videos=3)
    pred = predict(made, tmp_path / "_p$x^$")
    for root in (made.truth, pred):
        (root / "clip 1").rename(root / "caf\udce9")
        (root / "clip 2").rename(root / "a$\\frac$")
        (root / "clip 3").rename(root / "片段")
    files = ("--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv", "--plot", tmp_path / "s.png")
    ran = cli(main, "--dataset", "other", "--gt", made.truth, "--pred", pred, *files)
    assert ran.code == 0, ran.err
    videos = json.loads((tmp_path / "s.json").read_text("utf-8"))["models"][0]["videos"]
    assert set(videos) == {"caf\udce9", "a$\\frac$", "片段"}
    assert "caf\\udce9" in (tmp_path / "s.csv").read_text("utf-8")
    assert cv2.imread(str(tmp_path / "s.png")).std() > 5


def test_names_that_steer_terminals_or_spreadsheets_do_neither(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "other", videos=3)
    pred = predict(made, tmp_path / "=pred")
    names = ["=1+1", "'quoted", "\x1b[2Jgone"]
    for old, new in zip(made.videos, names, strict=True):
        for root in (made.truth, pred):
            (root / old).rename(root / new)
    (pred / names[2] / "0002.png").unlink()
    files = ("--csv", tmp_path / "s.csv", "--naming", "groundtruth")
    ran = cli(main, "--dataset", "other", "--gt", made.truth, "--pred", pred, *files)
    assert ran.code == 0, ran.err
    assert "\x1b" not in ran.out + ran.err
    assert r"frame of the ground truth has no map: \x1b[2Jgone/0002" in ran.err
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["video"] for row in rows} == {"'=1+1", "''quoted", "\x1b[2Jgone"}
    assert {row["model"] for row in rows} == {"'=pred"}
    assert {row["video"].removeprefix("'") for row in rows} == set(names)
