from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from salema.benchmarks.metrics.auc import _break_ties, auc_borji, auc_judd, exact_auc, shuffled_auc
from salema.benchmarks.studies import slow_metrics as slow

GOLDEN = Path(__file__).parents[2] / "golden/metrics.npz"
SIZE = (6, 9)
MAPS = arrays(np.uint8, SIZE).filter(lambda values: np.ptp(values) > 0)
FIXATED = arrays(bool, SIZE).filter(lambda fixated: fixated.any() and not fixated.all())
MONOTONE = st.sampled_from([np.sqrt, np.square, lambda x: 3 * x + 7, lambda x: np.exp(x / 50), np.log1p])


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("case", ["0", "1"])
def test_the_published_code_gives_the_same(case):
    with np.load(GOLDEN) as golden:
        saliency, fixated = golden[f"{case}/saliency"], golden[f"{case}/fixation"] > 0
        others = np.flatnonzero(golden[f"{case}/other"])
        assert auc_judd(saliency, fixated) == pytest.approx(golden[f"{case}/auc_judd"], abs=1e-6)
        wanted, deviation = float(golden[f"{case}/s_auc"]), float(golden[f"{case}/s_auc_std"])
    found = [shuffled_auc(saliency, fixated, others, np.random.default_rng(seed), at_top=False) for seed in range(50)]
    assert found[0] == pytest.approx(wanted, abs=4 * deviation)
    assert np.mean(found) == pytest.approx(wanted, abs=deviation)


@given(MAPS, FIXATED)
def test_judd_is_the_threshold_loop(saliency, fixated):
    assert auc_judd(saliency, fixated) == pytest.approx(slow.auc_judd(saliency, fixated))


@given(arrays(np.uint8, st.integers(1, 20)), arrays(np.uint8, st.integers(1, 20)), st.data())
def test_exact_is_every_pair_compared(positives, negatives, data):
    assert exact_auc(positives, negatives) == pytest.approx(slow.rank_auc(positives, negatives))
    counts = data.draw(arrays(np.int64, len(negatives), elements=st.integers(0, 3)))
    assume(counts.any())
    repeated = slow.rank_auc(positives, np.repeat(negatives, counts))
    assert exact_auc(positives, negatives, counts) == pytest.approx(repeated)
    assert exact_auc(positives, positives) == 0.5


@given(MAPS, FIXATED, MONOTONE)
def test_auc_is_the_same_under_monotone_maps(saliency, fixated, change):
    changed = change(saliency.astype(np.float64))
    assert auc_judd(changed, fixated) == pytest.approx(auc_judd(saliency, fixated))
    exact = exact_auc(saliency[fixated], saliency[~fixated])
    assert exact_auc(changed[fixated], changed[~fixated]) == pytest.approx(exact)
    assert exact_auc(255 - saliency[fixated], 255 - saliency[~fixated]) == pytest.approx(1 - exact)


@pytest.mark.parametrize("at_top", [False, True])
def test_sampled_scores_average_to_the_textbooks(at_top):
    """Not within a deviation of single draws, but of means of 40: a wrong sampling would show."""
    draw = np.random.default_rng(3)
    saliency = draw.integers(0, 256, (20, 30)).astype(np.uint8)
    saliency[:4] //= 3
    fixated, others = draw.random(saliency.shape) < 0.02, draw.random(saliency.shape) < 0.05
    places = np.flatnonzero(others)
    for fast, loop in (
        (lambda: shuffled_auc(saliency, fixated, places, draw, at_top=at_top),
         lambda: slow.shuffled_auc(saliency, fixated, others, draw, at_top=at_top)),
        (lambda: auc_borji(saliency, fixated, draw, at_top=at_top),
         lambda: slow.auc_borji(saliency, fixated, draw, at_top=at_top)),
    ):  # fmt: skip
        ours, theirs = np.array([(fast(), loop()) for _ in range(40)]).T
        error = np.hypot(ours.std(ddof=1), theirs.std(ddof=1)) / 40**0.5
        assert ours.mean() == pytest.approx(theirs.mean(), abs=4 * error)
        assert ours.std() == pytest.approx(theirs.std(), rel=0.6)


def test_with_no_more_others_than_fixations_nothing_is_left_to_chance():
    saliency = np.array([[0, 51, 102, 153, 204, 255]], np.uint8)
    fixated = np.array([[0, 0, 1, 0, 1, 1]], bool)
    for others in ([0, 1, 3], [1], [5, 0]):
        places = np.isin(np.arange(6), others)[None]
        for at_top in (False, True):
            found = shuffled_auc(saliency, fixated, np.array(others), rng(), at_top=at_top)
            assert found == pytest.approx(slow.shuffled_auc(saliency, fixated, places, rng(), at_top=at_top))


def test_the_maximum_is_a_threshold_or_not():
    saliency = np.array([[0, 250, 255]], np.uint8)
    fixated = np.array([[0, 0, 1]], bool)
    scores = [shuffled_auc(saliency, fixated, np.array([1]), rng(), at_top=top) for top in (False, True)]
    assert scores == [0.5, 1.0]


def test_noise_scores_as_chance_does():
    draw = np.random.default_rng(5)
    scores = []
    for _ in range(60):
        saliency, fixated = draw.random((40, 50)), draw.random((40, 50)) < 0.02
        others = np.flatnonzero(draw.random((40, 50)) < 0.1)
        scores.append(
            (
                auc_judd(saliency, fixated),
                exact_auc(saliency[fixated], saliency[~fixated]),
                shuffled_auc(saliency, fixated, others, draw, at_top=True),
                auc_borji(saliency, fixated, draw, at_top=True),
            )
        )
    assert np.mean(scores, axis=0) == pytest.approx(0.5, abs=0.03)


@given(FIXATED, st.integers(0, 255))
def test_a_flat_map_scores_a_half(fixated, level):
    flat = np.full(SIZE, level, np.uint8)
    assert auc_judd(flat, fixated) == 0.5
    assert exact_auc(flat[fixated], flat[~fixated]) == 0.5
    assert shuffled_auc(flat, fixated, np.array([0]), rng(), at_top=False) == 0.5
    assert auc_borji(flat, fixated, rng(), at_top=False) == 0.5


def test_one_fixation():
    saliency = np.arange(10.0).reshape(2, 5)
    for place in range(10):
        fixated = (np.arange(10) == place).reshape(2, 5)
        assert auc_judd(saliency, fixated) == pytest.approx(
            1 - (9 - place) / 18
        )  # from (0, 0) straight to its one point
        assert exact_auc(saliency[fixated], saliency[~fixated]) == pytest.approx(place / 9)


def jittered(saliency, fixated, draw, dtype):
    """The published way: noise of up to 1e-7 on every pixel, added in place."""
    levels = saliency.astype(dtype)
    levels += draw.random(levels.shape) * 1e-7
    return slow.auc_judd(levels, fixated)


@pytest.mark.parametrize("levels", [(0, 0, 0, 3, 90, 255), (1, 1, 1, 3, 90, 255), (0, 0, 1, 1, 1, 2), (1, 2, 2, 3)])
@pytest.mark.parametrize("read", [np.uint8, np.float32])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_break_as_jitter_breaks_them(dtype, read, levels):
    """Equal means, equal deviations."""
    draw = np.random.default_rng(4)
    saliency = draw.choice(np.array(levels, read), (20, 30))
    fixated = draw.random(saliency.shape) < 0.02
    ours = [auc_judd(saliency, fixated, draw, in_float32=dtype == np.float32) for _ in range(300)]
    theirs = [jittered(saliency, fixated, draw, dtype) for _ in range(300)]
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=4 * np.std(theirs) / 150**0.5)
    assert np.std(ours) == pytest.approx(np.std(theirs), rel=0.25)
    assert abs(np.mean(ours) - auc_judd(saliency, fixated)) > 3 * np.std(theirs) / 150**0.5


@pytest.mark.parametrize("case", ["0", "1"])
def test_the_published_jitter_gives_the_same_on_the_golden_maps(case):
    """Case 0, of many ones, is 0.218 for 0.200 without jitter; it was 0.204 while ones stayed where they were."""
    with np.load(GOLDEN) as golden:
        saliency, fixated = golden[f"{case}/saliency"], golden[f"{case}/fixation"] > 0
    draw = np.random.default_rng(5)
    ours = [auc_judd(saliency, fixated, draw, in_float32=True) for _ in range(200)]
    theirs = [jittered(saliency, fixated, draw, np.float32) for _ in range(100)]
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=4 * np.std(theirs) / 66**0.5)
    assert np.std(ours) == pytest.approx(np.std(theirs), rel=0.25)
    assert np.mean(ours) == pytest.approx({"0": 0.2182, "1": 0.5364}[case], abs=0.0015)


def test_a_level_that_was_resized_is_one_level_to_the_jitter_in_float64():
    """Its pixels differ by rounding errors, the same ones every time."""
    draw = np.random.default_rng(6)
    saliency = draw.choice(np.array([3.0, 90.0, 200.0]), (20, 30))
    noisy = saliency * (1 + 1e-15 * np.arange(600).reshape(20, 30) / 600)
    fixated = draw.random(saliency.shape) < 0.02
    assert len(np.unique(noisy)) > 10
    ours = [auc_judd(noisy, fixated, np.random.default_rng(seed)) for seed in range(200)]
    assert ours == [auc_judd(saliency, fixated, np.random.default_rng(seed)) for seed in range(200)]
    assert np.std(ours) > 0.01


def test_in_float32_ties_of_2_and_above_stay():
    saliency = np.array([[0, 0, 0, 2, 2, 2, 255, 255]], np.uint8)
    lit, dark = (np.isin(np.arange(8), places)[None] for places in ([3, 4, 6], [0, 1, 6]))
    for seed in range(20):
        draw = np.random.default_rng(seed)
        assert auc_judd(saliency, lit, draw, in_float32=True) == auc_judd(saliency, lit)
    assert len({auc_judd(saliency, dark, np.random.default_rng(seed), in_float32=True) for seed in range(20)}) > 1


@given(MAPS, FIXATED)
def test_without_ties_there_is_nothing_to_draw(saliency, fixated):
    ranks = saliency.astype(np.float64) + np.arange(saliency.size).reshape(SIZE) / 100
    assert auc_judd(ranks, fixated, rng()) == auc_judd(ranks, fixated)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_counting_levels_is_what_sorting_gives(dtype):
    draw = np.random.default_rng(3)
    positives, negatives = (draw.integers(0, top, 300).astype(dtype) for top in (256, 200))
    weights = draw.integers(0, 4, 300)
    for counts in (None, weights):
        sorted_ = exact_auc(positives.astype(np.float64), negatives.astype(np.float64), counts)
        assert exact_auc(positives, negatives, counts) == pytest.approx(sorted_, abs=1e-12)


def test_ranks_among_equals_are_drawn_without_putting_back():
    """Six fixations among six pixels of one value, and five among six of another: each rank at most once."""
    thresholds = np.repeat([3, 8], [6, 5])
    higher, upto = np.repeat([6, 0], [6, 5]), np.repeat([12, 6], [6, 5])
    left_out = set()
    for seed in range(60):
        above = upto.copy()
        _break_ties(above, thresholds, higher, np.random.default_rng(seed), black_only=False)
        assert above[:6].tolist() == [12, 11, 10, 9, 8, 7]
        assert above[6:].tolist() == sorted(set(above[6:]), reverse=True)
        left_out |= {*range(1, 7)} - {*above[6:]}
    assert left_out == {*range(1, 7)}
    above = upto.copy()
    _break_ties(above, thresholds, higher, np.random.default_rng(0), black_only=True)
    assert (above == upto).all()
