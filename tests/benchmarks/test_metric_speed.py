import pytest

from salema.benchmarks.metric_speed import fast, loops, make_frame


@pytest.mark.parametrize("metric", ["auc_judd", "s_auc", "nss", "cc", "sim"])
def test_both_sides_of_the_timing_score_the_same(metric):
    frame = make_frame((90, 160))
    tolerance = {"s_auc": 0.02, "auc_judd": 0.001}.get(metric, 1e-9)  # drawn; ties of black pixels; neither
    found = fast(frame, metric), loops(frame, metric)
    assert found[0] == pytest.approx(found[1], abs=tolerance)
    assert abs(found[0]) > 0.01


def test_all_five_are_the_sum_of_the_five():
    frame = make_frame((90, 160))
    assert loops(frame, "all five") == pytest.approx(
        sum(loops(frame, name) for name in ("auc_judd", "s_auc", "nss", "cc", "sim")), abs=0.03
    )
