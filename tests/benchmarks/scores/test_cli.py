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

from salema.benchmarks.metrics.protocols import METRICS
from salema.benchmarks.scores.cli import main
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
def test_metrics_without_sampling_are_scored_by_the_other_protocols_too(cli, tmp_path, protocol):
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


def test_the_maps_provenance_is_printed(cli, model, exported, tmp_path):
    made = write_dataset(tmp_path / "data", "other")
    arguments = ("--dataset", "other", "--src", made.source)
    backend = ("--backend", "onnxruntime", "--device", "cpu", "--threads", 1)
    assert cli(run_main, *arguments, "--dst", tmp_path / "maps", "--model", model, *backend).code == 0
    on = f"ONNX Runtime {onnxruntime.__version__} on cpu, 1 thread"
    title = f"seeded:16, SalEMA30 fp32, coefficient 0.1, {on}, salema"
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
    assert "note: seeded-16: the maps of 1 video were made by an unknown program\n" in ran.err
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


def test_missing_and_extra_maps_are_listed(cli, tmp_path):
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
        "note: pred: 1 of 10 frames has no AUC-J: no fixations, or every pixel fixated",
        "note: pred: 1 of 10 frames has no s-AUC: no fixations here or in other videos, or every pixel fixated",
        "note: pred: 1 of 10 frames has no NSS: no fixations",
        "note: pred: 1 of 10 frames has no CC: no density, or a flat one",
        "note: pred: 1 of 10 frames has no SIM: no density, or a flat one",
        "note: pred: 1 of 10 frames has no KL: no density, or a flat one",
        "note: pred: 1 of 10 frames has no AUC-B: no fixations, or every pixel fixated",
    ]
    (model,) = json.loads(file.read_text())["models"]
    assert model["videos_without_ground_truth"] == ["clip 3"]
    assert model["videos_without_maps"] == ["clip 4"]
    assert model["videos"]["clip 1"]["missing"] == ["0002"]
    assert model["videos"]["clip 2"]["extra"] == ["0009.png"]
    assert model["videos"]["clip 5"]["nss"] == pytest.approx(1)  # of the other two


def test_a_single_video_has_no_shuffled_auc_and_no_interval(cli, tmp_path):
    made = write_dataset(tmp_path / "data", "other", videos=2)
    pred = predict(made, tmp_path / "pred")
    for path in (pred / "clip 2").iterdir():
        path.unlink()
    shutil.copytree(pred, tmp_path / "b/pred")
    arguments = ("--pred", pred, "--compare", tmp_path / "b/pred", "--protocol", "exact")
    found = scored(cli, made, "other", tmp_path, *arguments)
    assert [model["label"] for model in found["models"]] == [str(pred), str(tmp_path / "b/pred")]
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
