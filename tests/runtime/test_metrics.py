from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from salema.benchmarks.studies import slow_metrics as slow
from salema.runtime import metrics
from salema.runtime.metrics import Measured, cc, kl_divergence, nss, places_of, sim

GOLDEN = Path(__file__).parents[1] / "golden/metrics.npz"
MAPS = arrays(np.uint8, (5, 7)).filter(lambda values: np.ptp(values) > 0)
FIXATED = arrays(bool, (5, 7)).filter(lambda fixated: fixated.any() and not fixated.all())
FLAT = np.full((5, 7), 9, np.uint8)


@pytest.mark.parametrize("case", ["0", "1"])
def test_the_published_code_gives_the_same(case):
    with np.load(GOLDEN) as golden:
        saliency, density, fixated = (golden[f"{case}/{name}"] for name in ("saliency", "density", "fixation"))
        assert nss(saliency, fixated) == pytest.approx(golden[f"{case}/nss"], abs=1e-6)
        assert cc(saliency, density) == pytest.approx(golden[f"{case}/cc"], abs=1e-6)
        assert sim(saliency, density) == pytest.approx(golden[f"{case}/sim"], abs=1e-6)


@given(MAPS, MAPS, FIXATED)
def test_the_textbook_gives_the_same(saliency, density, fixated):
    assert nss(saliency, fixated) == pytest.approx(slow.nss(saliency, fixated))
    assert nss(saliency, fixated, ddof=1) == pytest.approx(slow.nss(saliency, fixated, ddof=1))
    assert cc(saliency, density) == pytest.approx(slow.cc(saliency, density), abs=1e-9)
    assert sim(saliency, density) == pytest.approx(slow.sim(saliency, density))
    assert kl_divergence(saliency, density) == pytest.approx(slow.kl_divergence(saliency, density), abs=1e-9)


@given(MAPS, MAPS, st.sampled_from([np.float32, np.float64]))
def test_kl_of_maps_that_are_not_levels_is_the_textbooks(saliency, density, dtype):
    resized = (saliency / 3).astype(dtype)
    assert kl_divergence(resized, density) == pytest.approx(slow.kl_divergence(resized, density), abs=1e-12)
    assert kl_divergence(resized, density.astype(np.uint16)) == pytest.approx(
        kl_divergence(resized, density), abs=1e-12
    )


@given(MAPS, MAPS, st.sampled_from([np.float32, np.float64]))
def test_values_that_a_resize_brought_below_0_count_as_0_in_kl(saliency, density, dtype):
    resized = (saliency / 3 - 20).astype(dtype)
    cut = np.maximum(resized, 0)
    wanted = slow.kl_divergence(cut if cut.any() else FLAT, density)
    assert kl_divergence(resized, density) == pytest.approx(wanted, abs=1e-12)


@given(st.integers(1, 9), st.sampled_from([np.uint8, bool, np.int32, np.float64]), st.data())
def test_places_are_those_that_are_not_0_whatever_size_and_type(width, dtype, data):
    values = data.draw(arrays(np.uint8, (8, width), elements=st.sampled_from([0, 0, 0, 1, 128, 255]))).astype(dtype)
    for some in (values, values[:, ::-1], values[1:]):
        assert places_of(some).tolist() == [place for place, value in enumerate(some.ravel().tolist()) if value]
    assert places_of(np.arange(3)).tolist() == [0, 1, 2]


def test_levels_are_counted_whatever_the_size(monkeypatch):
    levels = np.array([[0, 3, 255], [3, 3, 0]], np.uint8)
    for most in (6, 5):  # by OpenCV, and by NumPy
        monkeypatch.setattr(metrics, "_MOST_COUNTED", most)
        counts = Measured(levels).counts
        assert {level: int(counts[level]) for level in np.flatnonzero(counts).tolist()} == {0: 2, 3: 3, 255: 1}


@given(MAPS, MAPS, st.floats(0.01, 100), st.floats(-100, 100))
def test_cc_is_symmetric_and_scale_free(first, second, scale, offset):
    assert cc(first, second) == pytest.approx(cc(second, first), abs=1e-9)
    assert cc(first * scale + offset, second) == pytest.approx(cc(first, second), abs=1e-6)
    assert cc(first, first) == pytest.approx(1)
    assert cc(first, 255 - first) == pytest.approx(-1)


@given(MAPS, MAPS)
def test_sim_of_a_map_with_itself_is_1_and_kl_0(first, second):
    assert sim(first, first) == pytest.approx(1)
    assert 0 <= sim(first, second) <= 1 + 1e-9
    assert sim(first, second) == pytest.approx(sim(second, first))
    assert kl_divergence(first, first) == pytest.approx(0, abs=1e-9)
    assert kl_divergence(first, second) >= -1e-9


@given(MAPS, FIXATED)
def test_nss_of_all_places_is_0(saliency, fixated):
    share = fixated.mean()
    assert nss(saliency, np.ones_like(fixated)) == pytest.approx(0, abs=1e-9)
    assert nss(saliency, fixated) * share + nss(saliency, ~fixated) * (1 - share) == pytest.approx(0, abs=1e-9)


@given(MAPS, FIXATED)
def test_a_flat_map_scores_as_chance_does(density, fixated):
    assert nss(FLAT, fixated) == 0
    assert cc(FLAT, density) == cc(density, FLAT) == 0
    even = np.full(density.shape, 1 / density.size)
    share = (density - density.min()) / np.sum(density - density.min(), dtype=float)
    assert sim(FLAT, density) == pytest.approx(np.minimum(even, share).sum())
    assert kl_divergence(np.zeros_like(FLAT), density) == pytest.approx(kl_divergence(FLAT, density))


def test_one_fixation_and_16_bits():
    saliency = np.array([[0, 0, 0, 40_000]], np.uint16)
    fixated = saliency > 0
    assert nss(saliency, fixated) == pytest.approx(3**0.5)
    assert nss(saliency, fixated, ddof=1) == pytest.approx(1.5)
    assert sim(saliency, saliency[:, ::-1]) == 0
