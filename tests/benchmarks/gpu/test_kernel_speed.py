"""The measurement of the kernels, tried over host memory: only the device is a stand-in."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from host_device import HostDevice, QueuedLauncher

from salema.benchmarks.gpu import kernel_speed
from salema.benchmarks.gpu.kernel_speed import KernelBench
from salema.benchmarks.studies.kernel_registers import TARGETS, VARIANTS
from salema.kernels.twins.ema import ema_update


class TimedDevice(HostDevice):
    def elapsed_ms(self, work):
        start = time.perf_counter()
        work()
        self.synchronize()
        return (time.perf_counter() - start) * 1e3


def test_every_kernel_is_timed_against_a_copy_of_as_many_bytes(monkeypatch):
    for name, value in (("_RUNS", 1), ("_REPEATS", 2), ("NETWORK_HW", (16, 32)), ("SOURCES_HW", {"tiny": (20, 30)})):
        monkeypatch.setattr(kernel_speed, name, value)
    monkeypatch.setattr(kernel_speed, "STATES", {"tiny": (2, 8, 4, 4)})
    device = TimedDevice()
    with device.active():
        found = KernelBench(device, QueuedLauncher(device), with_torch=False).measure()
    names = ["ema_update float16", "ema_update float32", "preprocess BGR", "postprocess overlay", "map_range"]
    assert [speed.kernel for speed in found] == names
    # x, out and residual in their type, the state read and written in float32.
    assert found[0].mbytes == pytest.approx(256 * (3 * 2 + 8) / 1e6)
    assert found[1].mbytes == pytest.approx(256 * (3 * 4 + 8) / 1e6)
    assert found[2].mbytes == pytest.approx((20 * 30 * 3 + 16 * 32 * 3) / 1e6)
    assert all(speed.us > 0 and speed.share_of_copy > 0 for speed in found)
    assert not device.pieces


def test_what_pytorch_is_timed_on_does_the_same():
    rng = np.random.default_rng(0)
    shape = (3, 4, 5, 6)
    for dtype in (np.float16, np.float32):
        arrays = {"state": rng.standard_normal(shape).astype(np.float32), "mix": np.array([1, 0.1, 0], np.float32)}
        arrays |= {name: rng.standard_normal(shape).astype(dtype) for name in ("x", "residual")}
        state, out = kernel_speed.torch_ema_update(**{name: torch.from_numpy(array) for name, array in arrays.items()})
        expected = np.empty(shape, dtype)
        ema_update(**arrays, out=expected)
        np.testing.assert_allclose(state.numpy(), arrays["state"], atol=1e-6)
        np.testing.assert_allclose(out.numpy(), expected, atol=2e-3)


def test_registers_are_recorded_for_every_variant_and_target():
    recorded = json.loads((Path(kernel_speed.__file__).parents[1] / "results/kernel_registers.json").read_text())
    assert set(recorded) == {" ".join((variant.name, *variant.arguments)) for variant in VARIANTS}
    for row in recorded.values():
        assert set(row) == set(TARGETS)
        assert all(0 < count <= 64 for count in row.values())
