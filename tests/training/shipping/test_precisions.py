import json
from pathlib import Path

import numpy as np
import pytest

from salema.benchmarks.maps.ground_truth import list_truth
from salema.benchmarks.maps.map_files import read_fixations, read_map
from salema.benchmarks.studies.common import cpu_of, write_by_cpu
from salema.runtime.run.dataset_layouts import list_videos
from salema.training.data.photographs import Photographs
from salema.training.shipping.clips import clips_table
from salema.training.shipping.lay_out import lay_out
from salema.training.shipping.precisions import FORMS, compare, table

ROOT = Path(__file__).parents[3]
RECORDS = json.loads((ROOT / "benchmarks/results/precisions.json").read_text("utf-8"))


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
    for video in laid_out.iterdir():
        for maps in (tmp_path / "first", tmp_path / "second"):
            (maps / video.name).mkdir(parents=True)
            (maps / video.name / "0001.png").write_bytes((video / "maps/0001.png").read_bytes())
    found = compare(laid_out, tmp_path / "first", tmp_path / "second")
    assert found["nss"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "videos": 8}


@pytest.mark.parametrize("record", RECORDS, ids=cpu_of)
def test_the_page_has_what_was_measured(record):
    page = (ROOT / "docs/models.md").read_text("utf-8")
    assert cpu_of(record) in page
    for forms in record["forms"].values():
        assert set(forms) <= set(FORMS)
        assert table(forms) in page
    for forms in record.get("forms_on_clips", {}).values():
        assert set(forms) <= set(FORMS)
        assert clips_table(forms) in page


@pytest.mark.parametrize("record", RECORDS, ids=cpu_of)
def test_lower_precisions_cost_less_than_would_call_for_training_with_them(record):
    """Beyond these limits it would pay to train with INT8 in the loop."""
    for forms in record["forms"].values():
        known = {form: found for form, found in forms.items() if "refused" not in found}
        assert known
        assert ("BF16, OpenVINO" in known) == ("avx512_bf16" in record["environment"]["cpu_features"])
        assert all(found["nss"]["mean"] > -0.01 and found["cc"]["mean"] > -0.005 for found in known.values())


@pytest.mark.parametrize("record", RECORDS, ids=cpu_of)
def test_maps_of_clips_are_those_of_fp32_to_a_hair_where_nothing_is_rounded(record):
    for forms in record.get("forms_on_clips", {}).values():
        for form, found in forms.items():
            if "refused" not in found:
                assert found["cc"]["mean"] > (0.9999999 if form.startswith("FP32") else 0.99)


def test_a_record_replaces_that_of_its_cpu_only(tmp_path, monkeypatch):
    file = tmp_path / "r.json"
    monkeypatch.setattr("sys.argv", ["study", str(file)])
    write_by_cpu({"number": 1})
    (first,) = json.loads(file.read_text())
    other = first | {"environment": first["environment"] | {"cpu_features": ["another"]}}
    file.write_text(json.dumps([other, first]))
    write_by_cpu({"number": 2})
    assert [record["number"] for record in json.loads(file.read_text())] == [1, 2]
    assert [cpu_of(record) for record in json.loads(file.read_text())] == [cpu_of(other), cpu_of(first)]
