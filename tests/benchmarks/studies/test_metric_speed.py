import numpy as np
import pytest

from salema.benchmarks.metrics.protocols import PROTOCOLS
from salema.benchmarks.studies.metric_speed import FIVE, fast, loops, make_frame


@pytest.mark.parametrize("metric", FIVE)
@pytest.mark.parametrize("name", ["salema", "dhf1k"])
def test_both_sides_of_the_timing_score_the_same(metric, name):
    protocol = PROTOCOLS[name]
    frame = make_frame((90, 160), protocol)
    tolerance = {"s_auc": 0.02, "auc_judd": 0.01}.get(metric, 1e-9)  # drawn; ties; neither
    found = fast(frame, protocol, metric), loops(frame, protocol, metric)
    assert found[0] == pytest.approx(found[1], abs=tolerance)
    assert abs(found[0]) > 0.01


def test_the_total_is_the_sum_of_the_five_metrics():
    protocol = PROTOCOLS["salema"]
    frame = make_frame((90, 160), protocol)
    for side in (loops, fast):
        assert side(frame, protocol, "all five") == pytest.approx(
            sum(side(frame, protocol, name) for name in FIVE), abs=0.03
        )


def test_frames_are_what_each_protocol_scores():
    frames = {name: make_frame((360, 640), protocol) for name, protocol in PROTOCOLS.items()}
    assert [frames[name]["saliency"].dtype for name in PROTOCOLS] == [np.uint8, np.float64, np.float32]
    assert [frame["others"].sum() / 80 for frame in frames.values()] == pytest.approx([40, 10, 6000], rel=0.01)
    assert [int(frame["others"].max()) for frame in frames.values()][:2] == [1, 1]
