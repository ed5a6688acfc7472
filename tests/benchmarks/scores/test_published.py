import csv
import json

import cv2
import pytest
from eval_maps import predict
from synthetic import write_dataset

from salema.benchmarks.scores.cli import main
from salema.benchmarks.scores.published import published_videos


def test_published_rows_csv_and_plot(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "DHF1K", first_video=699)
    pred = predict(made, tmp_path / "pred")
    files = ("--csv", tmp_path / "scores.csv", "--plot", tmp_path / "scores.png")
    more = ("--start", 600, "--end", 701, "--pred", pred, "--published", "--against-published")
    ran = cli(main, "--dataset", "DHF1K", "--gt", made.source, *more, *files)
    assert ran.code == 0, ran.err
    assert "SalEMA30, dropout (published) 0.886 0.690 2.495 0.450 0.360 - -" in " ".join(ran.out.split())
    assert "pred against the published scores of SalEMA30, 2 videos" in ran.out
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores, differences = rows[:3], rows[3:]
    assert [row["video"] for row in scores] == ["0699", "0700", "0701"]
    assert {(row["protocol"], row["seed"], row["model"]) for row in scores} == {("salema", "0", "pred")}
    assert float(scores[0]["cc"]) == pytest.approx(1)
    assert {row["model"] for row in differences} == {"pred less the published SalEMA30"}
    assert float(differences[-1]["cc"]) == pytest.approx(1 - float(published_videos()["700"][3]))
    assert all(row["auc_borji"] == row["kl"] == "" for row in differences)
    assert cv2.imread(str(tmp_path / "scores.png")).std() > 5


def test_only_whole_videos_are_compared_with_the_published_ones(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "DHF1K", first_video=697)
    pred = predict(made, tmp_path / "pred")
    arguments = ("--dataset", "DHF1K", "--gt", made.source, "--pred", pred, "--against-published")
    (pred / made.videos[0] / "0003.png").unlink()
    ran = cli(main, *arguments, "--naming", "groundtruth")
    assert ran.code == 0, ran.err
    assert "pred against the published scores of SalEMA30, 3 videos" in ran.out
    note = "note: pred: 1 video (0697) not scored whole, and not compared with the published scores"
    assert note in ran.err.splitlines()
    for video in made.videos[1:]:
        (pred / video / "0001.png").unlink()
    ran = cli(main, *arguments, "--naming", "groundtruth")
    assert ran.code == 1
    assert ran.err.startswith("salema-eval: --against-published: none of DHF1K's 601 to 700 has a map of every frame;")


def test_where_no_video_is_left_whole_there_is_no_empty_table(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "DHF1K", first_video=698)
    pred = predict(made, tmp_path / "pred")
    for video in made.videos:
        (pred / video / "0003.png").write_bytes(b"")
    arguments = ("--dataset", "DHF1K", "--gt", made.source, "--pred", pred, "--against-published")
    ran = cli(main, *arguments, "--naming", "groundtruth", "--json", tmp_path / "scores.json")
    assert ran.code == 1
    assert "not scored whole, and not compared with the published scores" in ran.err
    assert "against the published scores" not in ran.out
    assert json.loads((tmp_path / "scores.json").read_text())["against_published"]["pred"] == {
        "metrics": {},
        "videos": {},
    }
