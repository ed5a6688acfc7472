import subprocess
import sys

import cv2
import pytest
from eval_maps import predict, scored
from synthetic import write_dataset

from salema.benchmarks.maps.ground_truth import list_truth
from salema.benchmarks.maps.predictions import PredictedMaps
from salema.benchmarks.metrics.protocols import PROTOCOLS
from salema.benchmarks.scores.scoring import draws_beyond, score_dataset
from salema.benchmarks.studies import slow_metrics as slow


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("after", [0, 3, 23])
def test_an_error_in_progress_ends_the_scoring(tmp_path, jobs, after):
    """In a process of its own: a hang would be one of the pool's threads, which the interpreter waits for."""
    made = write_dataset(tmp_path / "data", "other", videos=4)
    pred = predict(made, tmp_path / "pred")
    code = f"""
from pathlib import Path
from salema.benchmarks.maps.ground_truth import list_truth
from salema.benchmarks.maps.predictions import PredictedMaps
from salema.benchmarks.metrics.protocols import PROTOCOLS
from salema.benchmarks.scores.scoring import score_dataset
calls = []
def progress(count):
    calls.append(count)
    if len(calls) > {after}:
        raise RuntimeError("the terminal is gone")
truth = list_truth("other", Path({str(made.truth)!r}))
sources = [PredictedMaps(root=Path({str(pred)!r}), dataset="other", truth=truth)]
try:
    score_dataset(sources, truth, PROTOCOLS["exact"], jobs={jobs}, progress=progress)
except RuntimeError as error:
    print("raised:", error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.returncode) == ("raised: the terminal is gone\n", 0), ran.stderr


@pytest.mark.parametrize("jobs", [1, 3])
def test_progress_counts_every_frame_that_was_read_and_scored(tmp_path, jobs):
    made = write_dataset(tmp_path / "data", "other", videos=4)
    truth = list_truth("other", made.truth)
    sources = [PredictedMaps("other", predict(made, tmp_path / "pred"), truth)]
    counts = []
    score_dataset(sources, truth, PROTOCOLS["salema"], jobs=jobs, progress=counts.append)
    assert sum(counts) == 24


@pytest.mark.parametrize("dataset", ["Hollywood-2", "DHF1K"])
def test_the_command_resizes_as_the_dataset_is_resized(cli, tmp_path, dataset):
    made = write_dataset(tmp_path / "data", dataset, videos=2, frames=1)

    def shrunk(density):
        return cv2.resize(cv2.GaussianBlur(density, (0, 0), 4), (20, 15))

    pred = predict(made, tmp_path / "pred", shrunk)
    (model,) = scored(cli, made, dataset, tmp_path, "--pred", pred)["models"]
    density = cv2.imread(str(made.truth / made.videos[0] / f"maps/{made.frame_names[0]}.png"), cv2.IMREAD_UNCHANGED)
    found = model["videos"][made.videos[0]]["cc"]
    wanted = {}
    for flag in (cv2.INTER_AREA, cv2.INTER_LINEAR):
        large = cv2.resize(shrunk(density), density.shape[::-1], interpolation=flag)
        large, half = (cv2.resize(image, (0, 0), fx=0.5, fy=0.5) for image in (large, density))
        wanted[flag] = slow.cc(large.astype(float), half.astype(float))
    own, other = cv2.INTER_AREA, cv2.INTER_LINEAR
    if dataset == "DHF1K":
        own, other = other, own
    assert found == pytest.approx(wanted[own], abs=1e-9)
    assert abs(found - wanted[other]) > 1e-4


def test_all_ground_truth_is_listed_only_where_more_of_it_is_drawn(tmp_path):
    made = write_dataset(tmp_path / "data", "DHF1K", videos=42, frames=1)
    whole, part = (list_truth("DHF1K", made.source, end=end) for end in (41, 40))
    assert [draws_beyond(PROTOCOLS["salema"], truth) for truth in (whole, part)] == [False, True]
    assert [draws_beyond(PROTOCOLS[name], whole) for name in ("dhf1k", "exact")] == [True, False]
