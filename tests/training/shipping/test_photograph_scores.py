import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from salema.export.weights.checkpoints import load_checkpoint
from salema.training.shipping.photograph_scores import (
    BOTH,
    CENTRE,
    PEOPLE,
    RESIDUAL,
    Centre,
    measure,
    spectral_residual,
    summarise,
    table,
)

ROOT = Path(__file__).parents[3]
RECORD = json.loads((ROOT / "benchmarks/results/photograph_scores.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def seen_by_three(photographs, tmp_path_factory):
    """The photographs with viewers named: every third fixation is one's. Names are bytes, which read as well."""
    folder = tmp_path_factory.mktemp("viewers") / "squares"
    shutil.copytree(photographs, folder)
    with np.load(folder / "fixations.npz") as archive:
        arrays = dict(archive)
    arrays["names"] = arrays["names"].astype(bytes)
    np.savez(folder / "fixations.npz", **arrays, viewer=np.arange(len(arrays["x"])) % 3)
    return folder


def test_a_centre_prior_is_the_gaussian_of_its_points():
    points = np.random.default_rng(0).multivariate_normal((0.4, 0.6), [[0.02, 0.005], [0.005, 0.01]], 20_000)
    density = Centre(points.astype(np.float32))(np.zeros((100, 200, 3), np.uint8))
    assert np.unravel_index(density.argmax(), density.shape) == pytest.approx((59.5, 79.5), abs=1.5)
    total = density / density.sum()
    columns, rows = np.meshgrid((np.arange(200) + 0.5) / 200, (np.arange(100) + 0.5) / 100)
    covariance = (total * (columns - 0.4) * (rows - 0.6)).sum()
    assert covariance == pytest.approx(0.005, rel=0.1)


def test_the_spectral_residual_finds_what_is_unlike_the_rest():
    image = np.random.default_rng(0).integers(60, 100, (96, 128, 3), dtype=np.uint8)
    image[40:56, 84:100] = 230
    row, column = np.unravel_index(spectral_residual(image).argmax(), (96, 128))
    assert 32 <= row < 64
    assert 76 <= column < 108


def test_scores_of_plain_photographs(seen_by_three):
    record = measure(seen_by_three, ["nano", "seeded:16"])
    assert (record["photographs"], record["trained_on"]) == (1, 7)
    nss = {name: found["nss"]["mean"] for name, found in record["scores"].items()}
    assert nss[PEOPLE] > nss["nano"] > nss[CENTRE]
    assert nss[BOTH] != nss[RESIDUAL]
    beyond = record["beyond_nano"]
    assert set(beyond) == {"seeded:16"}
    assert beyond["seeded:16"]["nss"]["mean"] == pytest.approx(nss["seeded:16"] - nss["nano"])
    assert f"| `seeded:16` | {beyond['seeded:16']['nss']['mean']:+.3f} (" in table(record, "beyond_nano")
    assert set(record["scores"][PEOPLE]) == {"nss", "auc_judd"}


def test_the_interval_is_of_the_photographs():
    scores = np.zeros((50, 7))
    scores[:, 2] = np.arange(50)
    found = summarise(scores)["nss"]
    assert found["mean"] == 24.5
    error = np.std(scores[:, 2]) / np.sqrt(50)
    assert (found["low"], found["high"]) == pytest.approx((24.5 - 1.96 * error, 24.5 + 1.96 * error), abs=0.3)


def test_the_page_has_the_measured_table_of_the_weights_that_ship():
    assert table(RECORD, "scores") in (ROOT / "docs/models.md").read_text("utf-8")
    assert RECORD["weights_sha256"] == {name: load_checkpoint(name).sha256 for name in RECORD["weights_sha256"]}


def test_nano_is_better_than_methods_without_gaze():
    scores = RECORD["scores"]
    for metric in ("nss", "auc_judd"):
        assert scores["nano"][metric]["low"] > scores[CENTRE][metric]["high"]
        assert scores[PEOPLE][metric]["mean"] > scores["nano"][metric]["mean"] > scores[BOTH][metric]["mean"]
