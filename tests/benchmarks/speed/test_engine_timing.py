"""The bench of an engine, on a device over host memory."""

import numpy as np
import pytest
from host_device import HostDevice, QueuedLauncher, open_host

from salema.benchmarks.speed import bench
from salema.benchmarks.speed.cases import Case, Plan
from salema.benchmarks.speed.engine_timing import Spread, time_engine
from salema.runtime.gpu.device_session import DeviceSession
from salema.runtime.gpu.trt_library import TENSORRT
from salema.runtime.stream import SaliencyStream


@pytest.mark.parametrize("options", [{}, {"split": True}, {"batch": None}])
@pytest.mark.parametrize("graphs", [True, False])
def test_parts_are_timed_apart_and_all_memory_is_given_back(exported, options, graphs, monkeypatch):
    device = HostDevice()
    with device.active():
        engine = open_host(exported(**options), device)
        monkeypatch.setattr(engine, "capturable", lambda _: graphs)
        found = time_engine(engine, device, QueuedLauncher(device), 1, 0.01)
        engine.close()
        assert not device.pieces
    assert found.graph == graphs
    assert (device.launches > 0) == graphs
    assert found.runs >= 10
    assert found.compute.median_ms > found.upload.median_ms > 0
    parts = found.upload.mean_ms + found.compute.mean_ms + found.download.mean_ms
    assert found.latency.mean_ms == pytest.approx(parts)
    assert 0 < found.enqueue.median_ms < found.compute.median_ms
    assert 0 < found.throughput_qps < 1e3 / found.compute.median_ms * 3  # a mean may hold another program's turn


def test_the_bare_engine_is_closed_after_its_timing(model, monkeypatch):
    said, opened = [], []

    def open_engine(folder, kind, gpu):
        assert (kind, gpu) == (TENSORRT, 0)
        device = HostDevice()
        with device.active():
            opened[:] = open_host(folder.folder, device), device, QueuedLauncher(device)
        monkeypatch.setattr(opened[2], "close", lambda: said.append("the launcher is closed"))
        return tuple(opened)

    monkeypatch.setattr(bench, "open_engine", open_engine)
    device = HostDevice()
    session = DeviceSession(open_host(model, device), device, QueuedLauncher(device), "host", backend="tensorrt")
    with SaliencyStream(session) as stream:
        case = Case("ours", "tensorrt", "fp32", 1, model, stream, session.description, 0)
        found = bench._time_bare(case, Plan((model,), duration_s=0.01, device="cpu"), said.append)
    assert found["runs"] >= 10
    assert said == ["timing the engine of ours alone", "the launcher is closed"]
    assert opened[1].closed


def test_spread_counts_percentiles_as_trtexec():
    found = Spread.of([float(value) for value in np.random.default_rng(0).permutation(100)])
    assert (found.mean_ms, found.median_ms, found.p90_ms, found.p95_ms, found.p99_ms) == (49.5, 49.5, 89, 94, 98)
