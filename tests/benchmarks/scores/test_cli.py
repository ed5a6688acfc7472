import csv
import itertools
import json
import re
import shutil

import cv2
import numpy as np
import onnxruntime
import pytest
from eval_maps import predict, scored
from synthetic import write_dataset
from videos import write_film

from salema.benchmarks.maps.ground_truth import list_truth
from salema.benchmarks.maps.map_files import read_map
from salema.benchmarks.maps.predictions import PredictedMaps
from salema.benchmarks.metrics.protocols import METRICS, PROTOCOLS
from salema.benchmarks.scores.cli import main
from salema.benchmarks.scores.published import published_videos
from salema.benchmarks.scores.scoring import score_dataset
from salema.benchmarks.studies import slow_metrics as slow
from salema.runtime.cli.run import main as run_main

DATASETS = ("DHF1K", "Hollywood-2", "UCF-sports", "other")


@pytest.mark.parametrize("matlab", [False, True])
@pytest.mark.parametrize("dataset", DATASETS)
def test_known_scores_come_out_in_every_layout(cli, tmp_path, dataset, matlab):
    made = write_dataset(tmp_path / "data", dataset, matlab=matlab)
    pred = predict(made, tmp_path / "pred")
    found = scored(cli, made, dataset, tmp_path, "--pred", pred, "--protocol", "exact")
    (model,) = found["models"]
    for mean in ("mean_over_videos", "mean_over_frames"):
        assert model[mean] == pytest.approx(made.known, abs=1e-9)
    assert (model["frames"], model["frames_without_score"]) == (12, {})
    assert list(model["videos"]) == list(made.videos)
    negatives = predict(made, tmp_path / "negatives", lambda density: 255 - density)
    (model,) = scored(cli, made, dataset, tmp_path, "--pred", negatives, "--protocol", "exact")["models"]
    aucs = {name: 1 - made.known[name] for name in ("auc_judd", "s_auc", "auc_borji")}
    assert model["mean_over_frames"] == pytest.approx(
        {**aucs, "nss": -1, "cc": -1, "sim": 0, "kl": model["mean_over_frames"]["kl"]}, abs=1e-9
    )


@pytest.mark.parametrize("protocol", ["salema", "dhf1k"])
def test_what_is_not_sampled_is_known_under_the_other_protocols_too(cli, tmp_path, protocol):
    made = write_dataset(tmp_path / "data", "DHF1K", frames=4)
    pred = predict(made, tmp_path / "pred")
    (model,) = scored(cli, made, "DHF1K", tmp_path, "--pred", pred, "--protocol", protocol)["models"]
    means = model["mean_over_frames"]
    size = 48 * 64 / (4 if protocol == "salema" else 1)
    assert means["nss"] == pytest.approx(1 if protocol == "salema" else (1 - 1 / size) ** 0.5)
    assert [means[name] for name in ("cc", "sim", "kl")] == pytest.approx([1, 1, 0], abs=1e-9)
    assert means["auc_borji"] == pytest.approx(0.75, abs=0.02)
    # Other videos' fixations lie in the same half: half of them, as the two videos of the other half have the same; or
    # 7 of 15 where the video's own frames take part, and 10 frames are drawn.
    assert means["s_auc"] == pytest.approx(3 / 4 if protocol == "salema" else 1 - 7 / 30, abs=0.06)


@pytest.mark.parametrize("dataset", DATASETS)
def test_export_run_eval(cli, model, tmp_path, dataset):
    """What a running model scores is what the maps that salema-run writes score, and what the textbook says of them."""
    made = write_dataset(tmp_path / "data", dataset)
    arguments = ("--dataset", dataset, "--src", made.source)
    assert cli(run_main, *arguments, "--dst", tmp_path / "maps", "--model", model).code == 0
    one_name = ("--dst", tmp_path / "named", "--naming", "groundtruth")
    assert cli(run_main, *arguments, *one_name, "--model", model).code == 0
    found = {}
    for protocol in ("salema", "exact"):
        for how, place in (("maps", tmp_path / "maps"), ("named", tmp_path / "named"), ("model", None)):
            source = ("--pred", place) if place else ("--model", model, "--src", made.source)
            (found[how],) = scored(cli, made, dataset, tmp_path, *source, "--protocol", protocol)["models"]
            assert found[how]["frames"] == 12
        assert found["maps"]["videos"] == found["named"]["videos"] == found["model"]["videos"]
    scores = {name: [] for name in ("nss", "cc", "sim", "kl", "auc_judd")}
    for video in made.videos:
        for name in made.frame_names:
            folder = next(path for path in (tmp_path / "named").rglob("*") if path.name == video)
            saliency = cv2.imread(str(folder / f"{name}.png"), cv2.IMREAD_UNCHANGED).astype(np.float32)
            density, fixation = (
                cv2.imread(str(made.truth / video / kind / f"{name}.png"), cv2.IMREAD_UNCHANGED)
                for kind in ("maps", "fixation")
            )
            saliency, fixated = cv2.resize(saliency, density.shape[::-1]), fixation > 0
            scores["nss"].append(slow.nss(saliency, fixated))
            scores["cc"].append(slow.cc(saliency, density))
            scores["sim"].append(slow.sim(saliency, density))
            scores["kl"].append(slow.kl_divergence(saliency, density))
            scores["auc_judd"].append(slow.rank_auc(saliency[fixated], saliency[~fixated]))
    means = found["maps"]["mean_over_frames"]
    for name, values in scores.items():
        assert means[name] == pytest.approx(np.mean(values), abs=1e-6)
        assert abs(np.mean(values)) > 1e-4


def test_what_made_the_maps_is_told(cli, model, exported, tmp_path):
    made = write_dataset(tmp_path / "data", "other")
    arguments = ("--dataset", "other", "--src", made.source)
    assert cli(run_main, *arguments, "--dst", tmp_path / "maps", "--model", model).code == 0
    title = f"seeded:16, SalEMA30 fp32, coefficient 0.1, ONNX Runtime {onnxruntime.__version__} on cpu, salema"
    score = ("--dataset", "other", "--gt", made.truth, "--pred", tmp_path / "maps")
    file = tmp_path / "scores.json"
    ran = cli(main, *score, "--json", file)
    count = len(made.videos)
    assert f"note: seeded-16: the maps of {count} videos were made by {title}" in ran.err
    (told,) = json.loads(file.read_text())["models"][0]["made_by"]
    assert told.startswith(f"the maps of {count} videos were made by {title}")

    first, second = (tmp_path / "maps/seeded-16_predictions" / video / "salema.json" for video in made.videos[:2])
    first.unlink()
    second.write_text(second.read_text().replace('"complete": true', '"complete": false'))
    ran = cli(main, *score)
    assert "note: seeded-16: the maps of 1 video were made by nothing that is known\n" in ran.err
    assert re.search(r"note: seeded-16: the maps of 1 video were made by seeded:16, .*, not finished\n", ran.err)
    ran = cli(main, *arguments, "--model", exported(alpha=0.3))
    assert "the maps are made, as they are scored, by seeded:16, SalEMA30 fp32, coefficient 0.3, ONNX" in ran.err


def test_dhf1ks_own_videos_score_as_their_frames_do(cli, model, tmp_path):
    made = write_dataset(tmp_path / "images", "DHF1K", videos=2)
    shutil.copytree(made.truth, tmp_path / "films/annotation")
    for video in (1, 2):
        frames = np.stack([cv2.imread(str(tmp_path / f"images/frames/{video}/{n}.png")) for n in made.frame_names])
        write_film(tmp_path / f"films/video/{video:03d}.AVI", frames)
    found = {}
    for kind in ("images", "films"):
        file = tmp_path / f"{kind}.json"
        source = ("--model", model, "--src", tmp_path / kind)
        ran = cli(main, "--dataset", "DHF1K", *source, "--protocol", "exact", "--json", file)
        assert ran.code == 0, ran.err
        found[kind] = json.loads(file.read_text())["models"][0]
    assert found["films"]["frames"] == 6
    assert found["films"]["videos"] == found["images"]["videos"]


def test_workers_and_order_change_nothing_and_the_seed_does(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "UCF-sports")
    draw = np.random.default_rng(1)
    pred = predict(made, tmp_path / "pred", lambda d: (d // 2 + draw.integers(0, 128, d.shape)).astype(np.uint8))
    for protocol in ("salema", "dhf1k"):
        arguments = ("--pred", pred, "--protocol", protocol)
        one, many, other = (
            scored(cli, made, "UCF-sports", tmp_path, *arguments, "--jobs", jobs, "--seed", seed)["models"]
            for jobs, seed in ((1, 0), (5, 0), (1, 1))
        )
        assert one == many
        changed = {name for name in METRICS if one[0]["mean_over_frames"][name] != other[0]["mean_over_frames"][name]}
        assert changed >= {"s_auc", "auc_borji"}
        assert not changed & {"nss", "cc", "sim", "kl"}


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
    assert lines[at + 5] == "10000 resamples of 4 videos"


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


def test_what_is_drawn_does_not_depend_on_the_map(cli, tmp_path):
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


def test_what_is_missing_or_too_much_is_listed(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "other", videos=6)
    pred = predict(made, tmp_path / "pred")
    (pred / "clip 1/0002.png").unlink()
    (pred / "clip 2/0001.png").rename(pred / "clip 2/0009.png")
    for path in (made.truth / "clip 3/maps", made.truth / "clip 3/fixation"):
        path.rename(path.with_name(f"no-{path.name}"))
    for path in (pred / "clip 4").iterdir():
        path.unlink()
    empty = made.truth / "clip 5/fixation/0001.png"
    cv2.imwrite(str(empty), np.zeros((48, 64), np.uint8))
    full = made.truth / "clip 5/fixation/0002.png"
    cv2.imwrite(str(full), np.full((48, 64), 255, np.uint8))
    (made.truth / "clip 6/maps/0003.png").unlink()
    file = tmp_path / "scores.json"
    arguments = ("--dataset", "other", "--gt", made.truth, "--pred", pred, "--naming", "groundtruth")
    ran = cli(main, *arguments, "--json", file)
    assert ran.code == 0
    assert ran.err.splitlines() == [
        "note: pred: 10 frames of 4 videos scored",
        "note: pred: 1 video (clip 3) without ground truth skipped",
        "note: pred: 1 video (clip 4) of the ground truth skipped, with no maps",
        "note: pred: 2 frames of the ground truth have no map: clip 1/0002, clip 2/0001",
        "note: pred: 1 map belongs to no frame of the ground truth: clip 2/0009.png",
        "note: pred: s-AUC takes 40 other frames; there are 12 to draw from",
        "note: pred: 2 of 10 frames have no AUC-J: no fixations, or nothing else",
        "note: pred: 2 of 10 frames have no s-AUC: no fixations, here or in other videos, or nothing else",
        "note: pred: 1 of 10 frames has no NSS: no fixations",
        "note: pred: 1 of 10 frames has no CC: no density, or a flat one",
        "note: pred: 1 of 10 frames has no SIM: no density, or a flat one",
        "note: pred: 1 of 10 frames has no KL: no density, or a flat one",
        "note: pred: 2 of 10 frames have no AUC-B: no fixations, or nothing else",
    ]
    (model,) = json.loads(file.read_text())["models"]
    assert model["videos_without_ground_truth"] == ["clip 3"]
    assert model["videos_without_maps"] == ["clip 4"]
    assert model["videos"]["clip 1"]["missing"] == ["0002"]
    assert model["videos"]["clip 2"]["extra"] == ["0009.png"]
    assert model["videos"]["clip 5"]["nss"] == pytest.approx(0.5)  # of the other two, one is fixated everywhere: 0


def test_a_single_video_has_no_shuffled_auc_and_no_interval(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "other", videos=2)
    pred = predict(made, tmp_path / "pred")
    for path in (pred / "clip 2").iterdir():
        path.unlink()
    found = scored(cli, made, "other", tmp_path, "--pred", pred, "--compare", pred, "--protocol", "exact")
    assert [model["label"] for model in found["models"]] == [str(pred), f"{pred} (2)"]
    assert found["models"][0]["mean_over_videos"]["s_auc"] is None
    assert found["difference"]["over_frames"]["s_auc"] == {"mean": None, "low": None, "high": None, "videos": 0}
    assert found["difference"]["over_frames"]["cc"] == {"mean": 0.0, "low": None, "high": None, "videos": 1}


def test_published_names_count_the_frames_not_the_ground_truth(cli, model, tmp_path):
    made = write_dataset(tmp_path / "data", "Hollywood-2", frames=4)
    arguments = ("--dataset", "Hollywood-2", "--src", made.source, "--model", model)
    assert cli(run_main, *arguments, "--dst", tmp_path / "maps").code == 0
    for kind in ("maps", "fixation"):
        (made.truth / made.videos[1] / kind / f"{made.frame_names[1]}.png").unlink()
    (maps,) = scored(cli, made, "Hollywood-2", tmp_path, "--pred", tmp_path / "maps")["models"]
    (running,) = scored(cli, made, "Hollywood-2", tmp_path, "--model", model, "--src", made.source)["models"]
    for name in METRICS:
        assert maps["mean_over_frames"][name] == running["mean_over_frames"][name]
    assert maps["frames"] == running["frames"] == 15
    (made.truth / made.videos[1] / "images").rename(tmp_path / "elsewhere")
    ran = cli(main, "--dataset", "Hollywood-2", "--gt", made.truth, "--pred", tmp_path / "maps")
    assert ran.code == 1
    assert "holds 4 maps counted from 1, and the ground truth 3 frames" in ran.err


def test_shuffled_auc_draws_from_all_ground_truth_whatever_is_scored(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "DHF1K")
    pred = predict(made, tmp_path / "pred")
    for protocol in ("salema", "dhf1k"):
        arguments = ("--pred", pred, "--protocol", protocol)
        (every,) = scored(cli, made, "DHF1K", tmp_path, *arguments)["models"]
        (one,) = scored(cli, made, "DHF1K", tmp_path, *arguments, "--start", 2, "--end", 2)["models"]
        assert one["videos"]["0002"]["s_auc"] == every["videos"]["0002"]["s_auc"]
