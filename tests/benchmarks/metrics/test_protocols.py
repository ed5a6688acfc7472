import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salema.benchmarks.metrics.protocols import METRICS, PROTOCOLS, find_protocol, score_frame
from salema.benchmarks.studies import slow_metrics as slow
from salema.runtime import metrics
from salema.runtime.output.bicubic import matlab_bicubic


def frame(seed=0, size=(36, 50), small=(24, 32)):
    """Returns a prediction, a density, fixations and others' fixations of one frame."""
    draw = np.random.default_rng(seed)
    saliency = cv2.GaussianBlur(draw.random(small), (0, 0), 2)
    saliency = np.rint((saliency - saliency.min()) / np.ptp(saliency) * 255).astype(np.uint8)
    fixated = draw.random(size) < 0.01
    density = cv2.GaussianBlur(fixated.astype(np.float32), (0, 0), 3)
    return saliency, (density / density.max() * 255).astype(np.uint8), fixated, (draw.random(size) < 0.05).astype(int)


def scores(protocol, *parts, seed=0):
    found = score_frame(*parts, PROTOCOLS[protocol], np.random.default_rng(seed))
    return dict(zip(METRICS, found, strict=True))


def average(protocol, *parts, runs=100):
    return {
        name: np.mean([scores(protocol, *parts, seed=seed)[name] for seed in range(runs)])
        for name in ("auc_judd", "s_auc", "auc_borji")
    }


def test_salema_is_what_the_published_code_does_step_by_step():
    saliency, density, fixated, others = frame()
    found = scores("salema", saliency, density, fixated, others)
    # All is uint8: the prediction gets the density's size bilinearly, then everything half of it, as OpenCV does.
    large = cv2.resize(saliency, (50, 36), interpolation=cv2.INTER_LINEAR)
    large, maps, places = (
        cv2.resize(image, (0, 0), fx=0.5, fy=0.5) for image in (large, density, fixated.astype(np.uint8) * 255)
    )
    # 255 in one of 40 maps is 6 in their average, truncated; half of that is above the published threshold of 0.5.
    elsewhere = cv2.resize((others * 255 / 40).astype(np.uint8), (0, 0), fx=0.5, fy=0.5) > 0.5
    places = places > 0.5
    large = large.astype(np.float32)
    assert found["nss"] == pytest.approx(slow.nss(large, places), abs=1e-5)
    assert found["cc"] == pytest.approx(slow.cc(large, maps), abs=1e-5)
    assert found["sim"] == pytest.approx(slow.sim(large, maps), abs=1e-5)
    draw = np.random.default_rng(9)
    jittered = [slow.auc_judd(jitter(large, draw), places) for _ in range(100)]
    mean = average("salema", saliency, density, fixated, others)
    assert mean["auc_judd"] == pytest.approx(np.mean(jittered), abs=4 * np.std(jittered) / 50**0.5 + 1e-9)
    theirs = [slow.shuffled_auc(large, places, elsewhere, draw) for _ in range(40)]
    assert mean["s_auc"] == pytest.approx(np.mean(theirs), abs=0.004)


def jitter(levels, draw):
    """Adds the published jitter, in place and so in float32."""
    levels = levels.astype(np.float32)
    levels += draw.random(levels.shape) * 1e-7
    return levels


def test_hollywood_and_ucf_are_resized_by_area_under_salema_alone():
    saliency, density, fixated, others = frame(6)
    large = cv2.resize(saliency, (50, 36), interpolation=cv2.INTER_AREA)
    large, maps = (cv2.resize(image, (0, 0), fx=0.5, fy=0.5) for image in (large, density))
    wanted = slow.cc(large.astype(np.float32), maps.astype(np.float32))
    for dataset in ("Hollywood-2", "UCF-sports"):
        protocol = find_protocol("salema", dataset)
        assert (protocol.name, protocol.other_frames) == ("salema", 10)
        found = score_frame(saliency, density, fixated, others, protocol, np.random.default_rng(0))
        assert dict(zip(METRICS, found, strict=True))["cc"] == pytest.approx(wanted, abs=1e-6)
    assert abs(scores("salema", saliency, density, fixated, others)["cc"] - wanted) > 1e-4
    for name in ("dhf1k", "exact"):
        assert find_protocol(name, "Hollywood-2") == PROTOCOLS[name]
    for dataset in ("DHF1K", "other"):
        assert find_protocol("salema", dataset) == PROTOCOLS["salema"]


def test_averaged_levels_are_halved_as_they_are():
    """A level of 1 in four is none, of 2 it is one: a place that was resized by area may fade away."""
    saliency, fixated = np.arange(64, dtype=np.uint8).reshape(8, 8), np.zeros((8, 8), bool)
    fixated[4, 4] = True
    levels = np.zeros((8, 8), np.uint8)
    levels[0, 0] = 1
    assert np.isnan(scores("salema", saliency, None, fixated, levels)["s_auc"])
    levels[0, 0] = 2
    assert scores("salema", saliency, None, fixated, levels)["s_auc"] > 0.9


def test_dhf1k_is_bicubic_at_full_size_with_n_less_1():
    saliency, density, fixated, others = frame(1)
    found = scores("dhf1k", saliency, density, fixated, others)
    large = matlab_bicubic(saliency, (36, 50))
    assert found["nss"] == pytest.approx(slow.nss(large, fixated, ddof=1))
    assert found["cc"] == pytest.approx(slow.cc(large, density))
    assert found["sim"] == pytest.approx(slow.sim(large, density))
    mean, draw = average("dhf1k", saliency, density, fixated, others), np.random.default_rng(9)
    jittered = [slow.auc_judd(large + draw.random(large.shape) * 1e-7, fixated) for _ in range(40)]
    assert mean["auc_judd"] == pytest.approx(np.mean(jittered), abs=0.002)
    theirs = [slow.shuffled_auc(large, fixated, others > 0, draw, at_top=True) for _ in range(40)]
    assert mean["s_auc"] == pytest.approx(np.mean(theirs), abs=0.006)


def test_exact_compares_every_pair():
    saliency, density, fixated, others = frame(2)
    others = others * np.arange(1, 51)
    found = scores("exact", saliency, density, fixated, others)
    large = cv2.resize(saliency.astype(np.float32), (50, 36), interpolation=cv2.INTER_LINEAR)
    negatives = np.repeat(large.ravel(), others.ravel())
    assert found["auc_judd"] == pytest.approx(slow.rank_auc(large[fixated], large[~fixated]))
    assert found["auc_borji"] == pytest.approx(slow.rank_auc(large[fixated], large.ravel()))
    assert found["s_auc"] == pytest.approx(slow.rank_auc(large[fixated], negatives))
    assert found["nss"] == pytest.approx(metrics.nss(large, fixated))
    assert found == scores("exact", saliency, density, fixated, others, seed=7)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_score_that_is_not_defined_is_nan(protocol):
    saliency, density, fixated, others = frame(3)
    every = np.ones_like(fixated)

    def undefined(*parts):
        return {name for name, value in scores(protocol, saliency, *parts).items() if np.isnan(value)}

    aucs = {"auc_judd", "s_auc", "auc_borji"}
    assert undefined(density, fixated, others) == set()
    assert undefined(None, fixated, others) == {"cc", "sim", "kl"}
    for level in (0, 9):
        assert undefined(np.full_like(density, level), fixated, others) == {"cc", "sim", "kl"}
    assert undefined(density, None, others) == undefined(density, ~every, others) == {*aucs, "nss"}
    assert undefined(density, every, others) == aucs
    assert undefined(density, fixated, None) == {"s_auc"}
    assert undefined(None, None, None) == set(METRICS)
    assert scores(protocol, saliency, density, every, others)["nss"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("level", [0, 1, 200])
def test_a_flat_prediction_scores_as_chance_does(protocol, level):
    _, density, fixated, others = frame(4)
    found = scores(protocol, np.full((24, 32), level, np.uint8), density, fixated, others)
    assert [found[name] for name in ("auc_judd", "s_auc", "auc_borji")] == [0.5] * 3
    assert (found["nss"], found["cc"]) == (0, 0)
    assert 0 < found["sim"] < 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_depth_is_no_matter(protocol, dtype):
    saliency, density, fixated, others = frame(5, small=(36, 50))
    deep = saliency.astype(dtype) * dtype(257)
    found = scores(protocol, saliency, density, fixated, others), scores(protocol, deep, density, fixated, others)
    tolerance = 1e-9 if protocol != "salema" else 0.03  # halves of 8-bit values are rounded
    assert found[0] == pytest.approx(found[1], abs=tolerance)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), small=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_any_sizes_are_scored(protocol, size, small):
    draw = np.random.default_rng(size)
    saliency, density = (draw.integers(0, 256, shape).astype(np.uint8) for shape in (small, size))
    fixated = draw.random(size) < 0.4
    found = scores(protocol, saliency, density, fixated, np.ones(size, int))
    assert np.isnan(found["sim"]) or -1e-9 <= found["sim"] <= 1 + 1e-9  # NaN where the density is flat
    known = [found[name] for name in ("auc_judd", "s_auc", "auc_borji") if not np.isnan(found[name])]
    # Ties in the published AUC-Judd can cost more than there is, on maps as small as these.
    assert all(-1 <= score <= 1 for score in known[:1])
    assert all(0 <= score <= 1 for score in known[1:])


def test_the_greatest_value_is_a_threshold_in_dhf1k_only():
    saliency, fixated, others = (np.array([row]) for row in ([0, 250, 255], [False, False, True], [0, 1, 0]))
    found = {name: scores(name, saliency.astype(np.uint8), None, fixated, others)["s_auc"] for name in PROTOCOLS}
    assert found == {"salema": 0.5, "dhf1k": 1.0, "exact": 1.0}


def test_jitter_breaks_ties_of_black_in_salema_and_all_in_dhf1k():
    saliency = np.array([[0, 0, 0, 3, 3, 3, 255, 255]], np.uint8)
    lit, dark = (np.isin(np.arange(8), places)[None] for places in ([3, 4, 6], [0, 1, 6]))

    def distinct(protocol, fixated):
        return len({scores(protocol, saliency, None, fixated, None, seed=seed)["auc_judd"] for seed in range(20)})

    assert [distinct("salema", places) > 1 for places in (lit, dark)] == [False, True]
    assert [distinct("dhf1k", places) > 1 for places in (lit, dark)] == [True, True]
    assert distinct("exact", dark) == 1
