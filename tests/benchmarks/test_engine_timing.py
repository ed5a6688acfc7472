"""The bench of an engine, on a device over host memory."""

import numpy as np
import pytest
from host_device import HostDevice, open_host

from salema.benchmarks.engine_timing import Spread, time_engine


@pytest.mark.parametrize("options", [{}, {"split": True}, {"batch": None}])
@pytest.mark.parametrize("graphs", [True, False])
def test_parts_are_timed_apart_and_all_memory_is_given_back(exported, options, graphs):
    device = HostDevice()
    with device.active():
        engine = open_host(exported(**options), device)
        found = time_engine(engine, device, 1, 0.01, graphs=graphs)
        engine.close()
        assert not device.pieces
    assert found.graph == graphs
    assert (device.launches > 0) == graphs
    assert found.runs >= 10
    assert found.compute.median_ms > found.upload.median_ms > 0
    parts = found.upload.mean_ms + found.compute.mean_ms + found.download.mean_ms
    assert found.latency.mean_ms == pytest.approx(parts)
    assert 0 < found.enqueue.median_ms < found.compute.median_ms
    assert 0 < found.throughput_qps < 1e3 / found.compute.mean_ms * 3


def test_spread_counts_percentiles_as_trtexec():
    found = Spread.of([float(value) for value in np.random.default_rng(0).permutation(100)])
    assert (found.mean_ms, found.median_ms, found.p90_ms, found.p95_ms, found.p99_ms) == (49.5, 49.5, 89, 94, 98)
