"""The kernels on a real GPU: equal to their twins to the bit, and `ema_update` to PyTorch in float64."""

import numpy as np
import pytest
import torch

from salema.kernels.arrays import place_array
from salema.kernels.device.cuda import CudaDevice
from salema.kernels.device.launcher import CudaLauncher
from salema.kernels.ops.ema import ema_update
from salema.kernels.ops.postprocess import map_range, postprocess
from salema.kernels.ops.preprocess import preprocess
from salema.kernels.tables import linear_tables, resize_tables
from salema.kernels.twins.ema import ema_update as ema_update_twin
from salema.kernels.twins.postprocess import map_range as map_range_twin
from salema.kernels.twins.postprocess import postprocess as postprocess_twin
from salema.kernels.twins.preprocess import preprocess as preprocess_twin

pytestmark = pytest.mark.gpu
SHAPES = [(1, 1, 1, 1), (1, 1, 1, 7), (5, 1, 1, 3), (3, 5, 7, 9), (2, 512, 12, 16)]
SOURCES = [(1, 1), (48, 64), (144, 176), (359, 641), (360, 640), (384, 512), (1080, 1920)]


@pytest.fixture(scope="module")
def gpu():
    device = CudaDevice()
    gpu = Gpu(device)
    yield gpu
    with device.active():
        gpu.launcher.close()
    device.close()


class Gpu:
    """Arrays to the device and back, and the launcher."""

    def __init__(self, device):
        self.device = device
        self.launcher = CudaLauncher(device)
        self.kept = []

    def up(self, array):
        placed, buffer = place_array(self.device, array, self.device)
        self.kept.append(buffer)
        return placed

    def down(self, array):
        host, _ = self.device.allocate_host(array.nbytes, mapped=False)
        self.device.download(host, array.address)
        self.device.synchronize()
        return host.copy().view(array.dtype).reshape(array.shape)

    def free(self):
        for buffer in self.kept:
            buffer.free()
        self.kept.clear()


def random_arrays(shape, dtype, rng):
    arrays = {"state": rng.standard_normal(shape).astype(np.float32), "x": rng.standard_normal(shape).astype(dtype)}
    arrays["mix"] = np.resize(np.array([1, 0.1, 0, 0.37], np.float32), shape[0])
    arrays["out"] = np.zeros(shape, dtype)
    arrays["residual"] = rng.standard_normal(shape).astype(dtype)
    return arrays


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_ema_update_is_its_twin_to_the_bit_and_pytorch_in_float64(gpu, shape, dtype):
    arrays = random_arrays(shape, dtype, np.random.default_rng(0))
    exact = {name: torch.from_numpy(array).double() for name, array in arrays.items()}
    with gpu.device.active():
        placed = {name: gpu.up(array) for name, array in arrays.items()}
        ema_update(gpu.launcher, **placed)
        state, found = gpu.down(placed["state"]), gpu.down(placed["out"])
        gpu.free()
    ema_update_twin(**arrays)
    np.testing.assert_array_equal(state, arrays["state"])
    np.testing.assert_array_equal(found, arrays["out"])
    after = torch.lerp(exact["state"], exact["x"], exact["mix"][:, None, None, None])
    np.testing.assert_allclose(state, after.numpy(), atol=1e-5)
    np.testing.assert_allclose(
        found, torch.relu(after + exact["residual"]).numpy(), atol=1e-5 if dtype == np.float32 else 5e-3
    )


@pytest.mark.parametrize(
    ("residual", "relu", "rectified"),
    [(False, False, False), (False, True, False), (True, False, False), (True, True, False), (False, True, True)],
)
@pytest.mark.parametrize("in_place", [False, True])
def test_every_option_of_ema_update(gpu, residual, relu, rectified, in_place):
    arrays = random_arrays((3, 6, 5, 6), np.float16, np.random.default_rng(1))
    arrays["residual"] = arrays["residual"] if residual else None
    with gpu.device.active():
        placed = {name: None if array is None else gpu.up(array) for name, array in arrays.items()}
        if in_place:
            placed["out"] = placed["x"]
        ema_update(gpu.launcher, **placed, relu=relu, rectified=rectified)
        state, found = gpu.down(placed["state"]), gpu.down(placed["out"])
        gpu.free()
    ema_update_twin(**arrays, relu=relu, rectified=rectified)
    np.testing.assert_array_equal(state, arrays["state"])
    np.testing.assert_array_equal(found, arrays["out"])


def test_pictures(gpu):
    rng = np.random.default_rng(0)
    saliency = rng.random((48, 64), np.float32)
    limits = np.array([saliency.min(), saliency.max()], np.float32)
    frame, colours = (rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((90, 122, 3), (256, 3)))
    expected = np.zeros_like(frame)
    drawn = {"view": "overlay", "frame": frame, "colours": colours}
    postprocess_twin(saliency, limits, expected, **drawn)
    with gpu.device.active():
        out = gpu.up(np.zeros_like(frame))
        inputs = {name: gpu.up(value) for name, value in drawn.items() if name != "view"}
        inputs |= {"view": "overlay", "tables": linear_tables((48, 64), (90, 122)).placed(gpu.up)}
        postprocess(gpu.launcher, gpu.up(saliency), gpu.up(limits), out, **inputs)
        np.testing.assert_array_equal(gpu.down(out), expected)
        grey, twin = gpu.up(np.zeros((48, 64), np.uint8)), np.zeros((48, 64), np.uint8)
        postprocess(gpu.launcher, gpu.up(saliency), gpu.up(limits), grey, view="map8")
        postprocess_twin(saliency, limits, twin, view="map8")
        np.testing.assert_array_equal(gpu.down(grey), twin)
        gpu.free()


def test_a_thousand_updates_track_float64(gpu):
    rng = np.random.default_rng(0)
    shape, weight = (1, 4, 4, 4), np.float32(0.01)
    exact = np.zeros(shape)
    with gpu.device.active():
        state, mix = gpu.up(np.zeros(shape, np.float32)), gpu.up(np.full(1, weight, np.float32))
        out = gpu.up(np.zeros(shape, np.float32))
        for _ in range(1000):
            x = rng.uniform(0.5, 2, shape).astype(np.float32)
            exact += np.float64(weight) * (x - exact)
            ema_update(gpu.launcher, state, gpu.up(x), mix, out)
        found = gpu.down(state)
        gpu.free()
    assert np.abs(found / exact - 1).max() < 1e-5


@pytest.mark.parametrize("source_hw", SOURCES)
def test_preprocess_is_its_twin_to_the_bit(gpu, source_hw):
    source = np.random.default_rng(0).integers(0, 256, (*source_hw, 3), dtype=np.uint8)
    expected = np.empty((192, 256, 3), np.uint8)
    preprocess_twin(source, expected)
    with gpu.device.active():
        tables = resize_tables(source_hw, (192, 256)).placed(gpu.up)
        out = gpu.up(np.zeros_like(expected))
        preprocess(gpu.launcher, gpu.up(source), out, tables)
        found = gpu.down(out)
        gpu.free()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 192, 256)])
def test_map_range_is_its_twin_and_shows_nan(gpu, shape):
    saliency = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    saliency[-1, -1, -1] = np.nan
    expected = np.empty((shape[0], 2), np.float32)
    map_range_twin(saliency, expected)
    with gpu.device.active():
        out = gpu.up(np.zeros_like(expected))
        map_range(gpu.launcher, gpu.up(saliency), out)
        np.testing.assert_array_equal(gpu.down(out), expected)
        gpu.free()


@pytest.mark.parametrize("source_hw", SOURCES)
@pytest.mark.parametrize("view", ["map", "overlay"])
def test_postprocess_is_its_twin_to_the_bit(gpu, source_hw, view):
    rng = np.random.default_rng(0)
    saliency = rng.random((192, 256), np.float32)
    limits = np.array([saliency.min(), saliency.max()], np.float32)
    drawn = {"frame": rng.integers(0, 256, (*source_hw, 3), dtype=np.uint8)} if view == "overlay" else {}
    drawn |= {"colours": rng.integers(0, 256, (256, 3), dtype=np.uint8)} if view == "overlay" else {}
    expected = np.empty((*source_hw, 3), np.uint8)
    postprocess_twin(saliency, limits, expected, view=view, **drawn)
    with gpu.device.active():
        out = gpu.up(np.zeros_like(expected))
        inputs = {name: gpu.up(array) for name, array in drawn.items()}
        tables = linear_tables((192, 256), source_hw).placed(gpu.up)
        postprocess(gpu.launcher, gpu.up(saliency), gpu.up(limits), out, view=view, tables=tables, **inputs)
        np.testing.assert_array_equal(gpu.down(out), expected)
        gpu.free()


def test_kernels_can_be_recorded_once_they_are_loaded(gpu):
    arrays = random_arrays((1, 8, 4, 4), np.float16, np.random.default_rng(0))
    with gpu.device.active():
        placed = {name: gpu.up(array) for name, array in arrays.items()}
        ema_update(gpu.launcher, **placed)
        graph = gpu.device.capture(lambda: ema_update(gpu.launcher, **placed))
        gpu.device.launch(graph)
        found = gpu.down(placed["state"])
        del graph
        gpu.free()
    for _ in range(2):
        ema_update_twin(**arrays)
    np.testing.assert_array_equal(found, arrays["state"])
