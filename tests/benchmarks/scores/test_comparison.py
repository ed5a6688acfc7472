import csv
import itertools
import shutil

import numpy as np
import pytest
from eval_maps import predict, scored
from synthetic import write_dataset

from salema.benchmarks.maps.ground_truth import list_truth
from salema.benchmarks.maps.map_files import read_map
from salema.benchmarks.maps.predictions import PredictedMaps
from salema.benchmarks.metrics.protocols import METRICS, PROTOCOLS
from salema.benchmarks.scores.cli import main
from salema.benchmarks.scores.scoring import score_dataset


def test_comparing_two_exports(cli, model, exported, tmp_path):
    made = write_dataset(tmp_path / "data", "DHF1K", frames=2)
    half = exported(precision="fp16")
    arguments = ("--model", model, "--src", made.source, "--compare", half, "--protocol", "exact")
    found = scored(cli, made, "DHF1K", tmp_path, *arguments)
    first, second = found["models"]
    assert (first["label"], second["label"]) == ("seeded:16 fp32", "seeded:16 fp16")
    over = found["difference"]["over_videos"]
    for name in METRICS:
        gap = second["mean_over_videos"][name] - first["mean_over_videos"][name]
        assert over[name]["mean"] == pytest.approx(gap, abs=1e-12)
        assert over[name]["low"] <= over[name]["mean"] <= over[name]["high"]
        assert abs(gap) < 0.01
    assert over["auc_judd"]["videos"] == 4
    assert list(found["difference"]["videos"]) == list(made.videos)


def test_comparing_maps_finds_a_difference_that_is_there(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "other")
    good, bad = predict(made, tmp_path / "good"), predict(made, tmp_path / "bad", lambda density: density.T.copy())
    arguments = ("--dataset", "other", "--gt", made.truth, "--pred", good, "--compare", bad, "--protocol", "exact")
    ran = cli(main, *arguments, "--csv", tmp_path / "scores.csv")
    assert ran.code == 0, ran.err
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    first, second, less = rows[:4], rows[4:8], rows[8:]
    assert [row["model"] for row in (first[0], second[0], less[0])] == ["good", "bad", "bad less good"]
    for a, b, difference in zip(first, second, less, strict=True):
        assert a["video"] == b["video"] == difference["video"]
        assert float(difference["cc"]) == pytest.approx(float(b["cc"]) - float(a["cc"]))
    lines = ran.out.splitlines()
    assert lines[0] == "other, protocol exact, seed 0"
    assert lines[1].split() == list(METRICS.values())
    assert lines[2].startswith("good (mean over videos)       ")
    at = lines.index("bad less good, mean over videos, with the paired bootstrap's 95% interval")
    difference, low, high = ([float(x) for x in line.split()[1:]] for line in lines[at + 2 : at + 5])
    assert difference[3] < -0.5
    assert low[3] <= difference[3] <= high[3] < 0
    assert lines[at + 5] == "10000 resamples of 4 videos, which are few: the interval is too narrow"


def test_two_weights_in_the_folders_of_the_videos_are_compared(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "Hollywood-2", videos=2)
    for weights, change in (("A", lambda density: density), ("B", lambda density: density.T.copy())):
        maps = predict(made, tmp_path / weights, change)
        for video in made.videos:
            (maps / video).rename(made.source / video / f"{weights}_predictions")
    arguments = ("--pred", made.source, "--compare", made.source, "--protocol", "exact")
    found = scored(cli, made, "Hollywood-2", tmp_path, *arguments, "--weights", "A,B")
    assert [model["label"] for model in found["models"]] == ["A", "B"]
    assert found["difference"]["over_videos"]["cc"]["mean"] < -0.5
    for same in ("A", "A,A"):
        ran = cli(main, "--dataset", "Hollywood-2", "--gt", made.source, *arguments, "--weights", same)
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert "--compare: that is what it would be compared with; name another, or two with --weights A,B" in ran.err


def test_a_model_is_not_compared_with_itself(cli, model, tmp_path):
    made = write_dataset(tmp_path / "data", "DHF1K", frames=2)
    same = model.parent / "." / model.name
    ran = cli(main, "--dataset", "DHF1K", "--model", model, "--src", made.source, "--compare", same)
    assert ran.code == 2
    assert "--compare: that is what it would be compared with" in ran.err


def test_two_models_are_compared_on_the_frames_that_both_have(cli, tmp_path, monkeypatch):
    made = write_dataset(tmp_path / "data", "other", videos=4)
    good, bad = predict(made, tmp_path / "good"), predict(made, tmp_path / "bad", lambda density: density.T.copy())
    shutil.rmtree(bad / "clip 1")
    (bad / "clip 2/0001.png").unlink()
    (good / "clip 3/0002.png").unlink()
    read = []
    monkeypatch.setattr(
        "salema.benchmarks.scores.scoring.read_map", lambda path: (read.append(path), read_map(path))[1]
    )
    arguments = ("--pred", good, "--naming", "groundtruth", "--protocol", "exact", "--jobs", 1)
    both = scored(cli, made, "other", tmp_path, *arguments, "--compare", bad)
    assert len(read) == len(set(read)) == 3 * 3 - 2  # densities, each once for both
    first, second = both["models"]
    assert first["frames"] == second["frames"] == 7
    assert (first["videos_left_out"], second["videos_without_maps"]) == (["clip 1"], ["clip 1"])
    assert second["videos_left_out"] == []
    assert first["videos"]["clip 2"]["the_other_lacks"] == ["0001"]
    assert second["videos"]["clip 3"]["the_other_lacks"] == ["0002"]
    for side in (good, bad):  # the same frames alone give the same row
        for name in ("clip 1", "clip 2/0001.png", "clip 3/0002.png"):
            path = side / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    alone = scored(cli, made, "other", tmp_path, *arguments)["models"][0]
    assert alone["mean_over_frames"]["cc"] == pytest.approx(first["mean_over_frames"]["cc"])
    assert both["difference"]["over_frames"]["cc"]["mean"] == pytest.approx(
        second["mean_over_frames"]["cc"] - first["mean_over_frames"]["cc"]
    )


def test_maps_of_the_same_frame_are_compared(tmp_path):
    """Maps differ from frame to frame, and one model lacks one: what it has must score as in the other."""
    made = write_dataset(tmp_path / "data", "other", frames=6)
    shift = itertools.count()
    good = predict(made, tmp_path / "good", lambda density: np.roll(density, 3 * next(shift), axis=1))
    bad = shutil.copytree(good, tmp_path / "bad")
    (bad / "clip 2/0003.png").unlink()
    truth = list_truth("other", made.truth)
    sources = [PredictedMaps("other", place, truth, naming="groundtruth") for place in (good, bad)]
    first, second = score_dataset(sources, truth, PROTOCOLS["exact"], jobs=3)
    assert len({row.tobytes() for video in first.videos.values() for row in video.scores}) > 10
    for key, video in first.videos.items():
        assert video.frames == second.videos[key].frames
        np.testing.assert_array_equal(video.scores, second.videos[key].scores)
    sources[1].maps = lambda key: iter([*PredictedMaps.maps(sources[1], key)][::-1])
    with pytest.raises(ValueError, match="the models' frames come in different orders"):
        score_dataset(sources, truth, PROTOCOLS["exact"])


def test_a_video_without_a_frame_in_common_takes_no_part(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "other", videos=5, frames=4)
    good, bad = predict(made, tmp_path / "good"), predict(made, tmp_path / "bad", lambda density: density.T.copy())
    for place, names in ((good, ("0001", "0002")), (bad, ("0003", "0004"))):
        for name in names:
            (place / "clip 1" / f"{name}.png").unlink()
    arguments = ("--pred", good, "--compare", bad, "--naming", "groundtruth", "--protocol", "exact")
    with_it = scored(cli, made, "other", tmp_path, *arguments)
    assert with_it["models"][0].pop("videos_left_out") == with_it["models"][1].pop("videos_left_out") == ["clip 1"]
    for place in (good, bad):
        shutil.rmtree(place / "clip 1")
    without = scored(cli, made, "other", tmp_path, *arguments)
    assert with_it["difference"] == without["difference"]
    assert with_it["models"][0]["mean_over_videos"] == without["models"][0]["mean_over_videos"]


def test_random_draws_do_not_depend_on_the_map(cli, tmp_path):
    """AUC-Borji and s-AUC are the same for a map and the map plus ten; AUC-Judd draws among black pixels."""
    made = write_dataset(tmp_path / "data", "other", frames=4)
    draw = np.random.default_rng(3)
    noise = np.kron(
        draw.integers(0, 4, (24, 32)).astype(np.uint8), np.full((2, 2), 60, np.uint8)
    )  # halved, still black
    plain, lifted = (
        predict(made, tmp_path / name, lambda _, more=more: noise + np.uint8(more))
        for name, more in (("a", 0), ("b", 10))
    )
    found = scored(cli, made, "other", tmp_path, "--pred", plain, "--compare", lifted)["difference"]["over_frames"]
    assert found["s_auc"]["mean"] == found["auc_borji"]["mean"] == 0
    assert found["auc_judd"]["mean"] != 0


def test_notes_say_what_a_comparison_leaves_out(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "other", videos=3)
    good, bad = predict(made, tmp_path / "good"), predict(made, tmp_path / "bad")
    shutil.rmtree(bad / "clip 1")
    (bad / "clip 2/0001.png").unlink()
    arguments = ("--dataset", "other", "--gt", made.truth, "--pred", good, "--protocol", "exact")
    ran = cli(main, *arguments, "--naming", "groundtruth", "--compare", bad)
    assert ran.code == 0
    assert "note: good: 1 video (clip 1) left out: no frame in common with the other" in ran.err.splitlines()
    assert "note: good: 1 frame left out, of which the other has no map: clip 2/0001" in ran.err.splitlines()
    for path in (bad / "clip 2").iterdir():
        path.unlink()
    for name in ("0001.png", "0002.png", "0003.png"):
        (good / "clip 3" / name).unlink() if name != "0001.png" else (bad / "clip 3" / name).unlink()
    ran = cli(main, *arguments, "--naming", "groundtruth", "--compare", bad)
    assert ran.code == 1
    assert ran.err == "salema-eval: bad: has no frame in common with good; compare maps of the same frames\n"
