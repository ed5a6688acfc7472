import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from salema.benchmarks.metrics import counting
from salema.benchmarks.metrics.auc import exact_auc, without_positives
from salema.benchmarks.metrics.counting import Counting

SHAPES = st.tuples(st.integers(1, 6), st.integers(2, 9))
ELEMENTS = {
    np.uint8: st.integers(0, 255),
    np.uint16: st.integers(0, 65535),
    np.float32: st.floats(0, 2.0**100, width=32),
    np.float64: st.floats(0, 1e300),
}
TYPES = st.sampled_from(list(ELEMENTS))


def plainly(values, thresholds, weights=None):
    weights = np.ones(values.size) if weights is None else weights
    flat = values.ravel()
    return [[weights[flat > t].sum() for t in thresholds], [weights[flat >= t].sum() for t in thresholds]]


@given(st.data(), TYPES, SHAPES)
def test_any_maps_values_are_counted_as_comparing_them_counts(data, dtype, shape):
    values = data.draw(arrays(dtype, shape, elements=ELEMENTS[dtype]))
    assume(np.ptp(values) > 0)
    thresholds = data.draw(st.lists(st.sampled_from(values.ravel().tolist()), min_size=1, max_size=9))
    thresholds = np.array(thresholds, dtype)
    weights = data.draw(arrays(np.int64, values.size, elements=st.integers(0, 3)))
    counted = Counting(values)
    assert np.array(counted.above(thresholds)).tolist() == plainly(values, thresholds)
    assert np.array(counted.above(thresholds, weights)).tolist() == plainly(values, thresholds, weights)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("by_opencv", sorted({False, counting._LOOKS_UP_16_BITS}))
def test_a_map_of_full_size_with_many_equal_values(monkeypatch, dtype, by_opencv):
    monkeypatch.setattr(counting, "_LOOKS_UP_16_BITS", by_opencv)
    draw = np.random.default_rng(3)
    values = (draw.random((360, 640)) ** 4 * 200).astype(dtype)
    values[:100] = 0
    places = draw.integers(0, values.size, 60)
    thresholds = np.append(values.ravel()[places], dtype(0))
    weights = draw.integers(0, 3, values.size)
    counted = Counting(values)
    assert np.array(counted.above(thresholds)).tolist() == plainly(values, thresholds)
    assert np.array(counted.above(thresholds, weights)).tolist() == plainly(values, thresholds, weights)


def test_values_closer_than_a_step_are_equal():
    values = np.array([3.0, 3.0 + 1e-13, 3.0 - 1e-13, 3.0 + 1e-6, 90.0, 0.0])
    assert np.array(Counting(values).above(values[:1])).tolist() == [[3], [4]]
    assert np.array(Counting(values).above(values[:1], step=2.0**-30)).tolist() == [[2], [5]]


@pytest.mark.parametrize("span", [1e-44, 1e38])
def test_ranges_as_small_and_large_as_there_are(span):
    values = np.array([0, 0.25, 0.5, 1]) * span
    values = values.astype(np.float32)
    assert np.array(Counting(values).above(values)).tolist() == plainly(values, values)


def test_a_counted_map_scores_as_its_values_do():
    draw = np.random.default_rng(4)
    for dtype in (np.uint8, np.float32):
        values = draw.integers(0, 9, (20, 30)).astype(dtype)
        fixated, weights = draw.random(values.shape) < 0.05, draw.integers(0, 4, values.size)
        counted, positives = Counting(values), values[fixated]
        everywhere = exact_auc(positives, values.ravel())
        assert exact_auc(positives, counted) == pytest.approx(everywhere, abs=1e-14)
        assert exact_auc(positives, counted, weights) == pytest.approx(exact_auc(positives, values.ravel(), weights))
        others = exact_auc(positives, values[~fixated])
        assert without_positives(everywhere, positives.size, values.size) == pytest.approx(others, abs=1e-14)
