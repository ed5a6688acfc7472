import json
from pathlib import Path

import numpy as np
import pytest

from salema.benchmarks.maps.ground_truth import list_truth
from salema.benchmarks.maps.map_files import read_fixations, read_map
from salema.runtime.run.dataset_layouts import list_videos
from salema.training.data.photographs import Photographs
from salema.training.shipping.lay_out import lay_out
from salema.training.shipping.precisions import FORMS, compare, table

ROOT = Path(__file__).parents[3]
RECORD = json.loads((ROOT / "benchmarks/results/precisions.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def laid_out(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("laid-out")
    lay_out(Photographs(photographs), folder)
    return folder


def test_photographs_become_a_dataset_that_salema_eval_reads(photographs, laid_out):
    gaze = Photographs(photographs)
    truth = list_truth("other", laid_out)
    assert set(truth) == set(gaze.names)
    assert [len(video.frames) for video in list_videos("other", laid_out, laid_out, "nano")] == [1] * 8
    (seen,) = gaze.seen(3)
    (frame,) = truth[gaze.names[3]].frames
    size_hw, places = read_fixations(frame.fixation)
    assert size_hw == seen.fixated.shape
    assert places.tolist() == np.flatnonzero(seen.fixated).tolist()
    assert np.abs(read_map(frame.density) / 255 - seen.density).max() <= 0.5 / 255 + 1e-6


def test_the_same_maps_differ_by_nothing(laid_out, tmp_path):
    maps = tmp_path / "maps"
    for video in laid_out.iterdir():
        (maps / video.name).mkdir(parents=True)
        (maps / video.name / "0001.png").write_bytes((video / "maps/0001.png").read_bytes())
    found = compare(laid_out, maps, maps)
    assert found["nss"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "videos": 8}


def test_the_page_has_what_was_measured():
    forms = RECORD["forms"]["nano"]
    assert list(forms) == list(FORMS)
    assert table(forms) in (ROOT / "docs/models.md").read_text("utf-8")


def test_int8_costs_less_than_would_call_for_training_with_it():
    """Beyond these limits it would pay to train with INT8 in the loop."""
    known = [found for form, found in RECORD["forms"]["nano"].items() if "INT8" in form and "refused" not in found]
    assert len(known) == 3
    assert all(found["nss"]["mean"] > -0.01 and found["cc"]["mean"] > -0.005 for found in known)
