"""The measurement of the kernels, tried over host memory: only the device is a stand-in."""

import json
import time

import numpy as np
import pytest
import torch
from host_device import HostDevice, QueuedLauncher

from salema.benchmarks.gpu import kernel_speed
from salema.benchmarks.gpu.kernel_speed import KernelBench, NotMeasured
from salema.benchmarks.gpu.settings import Settings
from salema.benchmarks.gpu.stages import run
from salema.kernels.twins.ema import ema_update


class TimedDevice(HostDevice):
    def elapsed_ms(self, work):
        start = time.perf_counter()
        work()
        self.synchronize()
        return (time.perf_counter() - start) * 1e3


@pytest.fixture
def tiny(monkeypatch):
    for name, value in (("_RUNS", 1), ("_REPEATS", 2), ("NETWORK_HW", (16, 32)), ("SOURCES_HW", {"tiny": (20, 30)})):
        monkeypatch.setattr(kernel_speed, name, value)
    monkeypatch.setattr(kernel_speed, "STATES", {"tiny": (2, 8, 4, 4)})


NAMES = ["ema_update float16", "ema_update float32", "preprocess BGR", "postprocess overlay", "map_range"]


def test_every_kernel_is_timed_against_a_copy_of_as_many_bytes(tiny):
    device = TimedDevice()
    with device.active():
        found = list(KernelBench(device, QueuedLauncher(device), with_torch=False).measure())
    assert [speed.kernel for speed in found] == NAMES
    # x, out and residual in their type, the state read and written in float32.
    assert found[0].mbytes == pytest.approx(256 * (3 * 2 + 8) / 1e6)
    assert found[1].mbytes == pytest.approx(256 * (3 * 4 + 8) / 1e6)
    assert found[2].mbytes == pytest.approx((20 * 30 * 3 + 16 * 32 * 3) / 1e6)
    assert all(speed.us > 0 and speed.share_of_copy > 0 for speed in found)
    assert not device.pieces


def test_a_size_that_does_not_fit_loses_no_other_row(tiny, monkeypatch):
    class SmallDevice(TimedDevice):
        def allocate(self, nbytes):
            if nbytes > 1 << 20:
                raise MemoryError("cuMemAlloc failed: out of memory")  # PyCUDA's own class, which is none of ours
            return super().allocate(nbytes)

    monkeypatch.setattr(kernel_speed, "STATES", {"huge": (64, 512, 12, 16), "tiny": (2, 8, 4, 4)})
    device = SmallDevice()
    with device.active():
        found = list(KernelBench(device, QueuedLauncher(device), with_torch=False).measure())
    assert [row.kernel for row in found] == [*NAMES[:2], *NAMES]
    error = "MemoryError: cuMemAlloc failed: out of memory"
    assert found[:2] == [NotMeasured(f"ema_update {dtype}", "huge", error) for dtype in ("float16", "float32")]
    assert all(row.us > 0 for row in found[2:])
    assert not device.pieces


def test_where_pytorch_lacks_memory_our_own_row_stays(tiny, monkeypatch):
    def lacks(shape, dtype):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(kernel_speed, "torch_ema_us", lacks)
    device = TimedDevice()
    with device.active():
        first = next(KernelBench(device, QueuedLauncher(device), with_torch=True).measure())
    assert first.us > 0
    assert (first.torch_us, first.torch_error) == (None, "CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.gpu
def test_the_stage_times_every_kernel_on_a_gpu(tiny, tmp_path):
    settings = Settings(tmp_path, tmp_path, "seeded:16", 1, 1, "cuda", (64, 96), seconds=0.1, stage_s=60)
    assert run("kernels", settings)
    found = json.loads((tmp_path / "kernels.json").read_text())
    assert [row["kernel"] for row in found["kernels"]] == NAMES
    assert all(row["us"] > 0 and row["share_of_copy"] > 0 for row in found["kernels"])
    by_torch = "torch_us" if torch.cuda.is_available() else "torch_error"
    assert [bool(row[by_torch]) for row in found["kernels"]] == [True, True, False, False, False]
    assert found["not_measured"] == []


def test_the_pytorch_peer_computes_the_same():
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
