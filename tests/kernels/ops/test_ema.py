"""`ema_update`: its source on the CPU against its NumPy twin to the bit, and the twin against PyTorch in float64."""

import dataclasses

import numpy as np
import pytest
import torch
from host_kernels import HostLauncher, aligned, on_host

from salema.kernels.errors import ArgumentError
from salema.kernels.ops.ema import ema_update
from salema.kernels.twins.ema import ema_update as ema_update_twin

SIZES = {
    "one element": (1, 1, 1, 1),
    "less than a thread's": (1, 1, 1, 7),
    "a thread's": (1, 8, 1, 1),
    "one more": (1, 3, 1, 3),
    "a vector over three streams": (5, 1, 1, 3),
    "odd": (3, 5, 7, 9),
    "a block and a bit": (2, 33, 8, 4),
    "SalEMA30, narrow": (2, 64, 12, 16),
}
MIXES = np.array([1.0, 0.1, 0.0, 0.37, 1.0], np.float32)


def make(shape, *, dtype=np.float32, residual=False, seed=0):
    """Random arguments by name."""
    rng = np.random.default_rng(seed)
    arrays = {"state": aligned(shape, np.float32, rng), "x": aligned(shape, dtype, rng)}
    arrays["mix"] = MIXES[: shape[0]].copy()
    arrays["out"] = aligned(shape, dtype)
    arrays["out"][:] = np.nan
    arrays["residual"] = aligned(shape, dtype, rng) if residual else None
    return arrays


def copied(arrays):
    return {name: None if array is None else array.copy() for name, array in arrays.items()}


def launch(arrays, launcher=None, **options):
    placed = {name: None if array is None else on_host(array) for name, array in arrays.items()}
    ema_update(launcher or HostLauncher(), **placed, **options)


def assert_same_bits(found, expected):
    np.testing.assert_array_equal(found.view(f"u{found.itemsize}"), expected.view(f"u{expected.itemsize}"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_source_on_the_cpu_is_its_twin_to_the_bit(size, dtype):
    arrays = make(SIZES[size], dtype=dtype)
    expected = copied(arrays)
    launch(arrays)
    ema_update_twin(**expected)
    assert_same_bits(arrays["state"], expected["state"])
    assert_same_bits(arrays["out"], expected["out"])


OPTIONS = [(residual, relu, False) for residual in (False, True) for relu in (False, True)] + [(False, True, True)]


@pytest.mark.parametrize(("residual", "relu", "rectified"), OPTIONS)
@pytest.mark.parametrize("shape", [(3, 6, 5, 6), (3, 6, 5, 7)])
def test_every_option(residual, relu, rectified, shape):
    arrays = make(shape, residual=residual)
    expected = copied(arrays)
    launch(arrays, relu=relu, rectified=rectified)
    ema_update_twin(**expected, relu=relu, rectified=rectified)
    assert_same_bits(arrays["state"], expected["state"])
    assert_same_bits(arrays["out"], expected["out"])
    assert (arrays["state"].min() >= 0) == rectified


@pytest.mark.parametrize("shape", [*SIZES.values(), (1, 1, 540, 960)], ids=[*SIZES, "a large frame"])
@pytest.mark.parametrize(("residual", "relu", "rectified"), OPTIONS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_twin_is_pytorch_in_float64(shape, residual, relu, rectified, dtype):
    arrays = make(shape, dtype=dtype, residual=residual)
    exact = {name: torch.from_numpy(array).double() for name, array in arrays.items() if array is not None}
    state = torch.lerp(exact["state"], exact["x"], exact["mix"][:, None, None, None])
    if rectified:
        state = torch.relu(state)
    after = state + exact.get("residual", torch.zeros(()))
    expected = torch.relu(after) if relu else after
    ema_update_twin(**arrays, relu=relu, rectified=rectified)
    np.testing.assert_allclose(arrays["state"], state.numpy(), atol=1e-6)
    np.testing.assert_allclose(arrays["out"], expected.numpy(), atol=1e-6 if dtype == np.float32 else 5e-3, rtol=1e-3)


@pytest.mark.parametrize("rectified", [False, True])
def test_mix_1_clears_nan_and_others_keep_it(rectified):
    arrays = make((3, 2, 3, 5))
    arrays["x"][:] = np.abs(arrays["x"])
    arrays["mix"][:] = [1, 0.5, 0]
    arrays["state"][:] = np.nan
    launch(arrays, rectified=rectified)
    np.testing.assert_array_equal(arrays["state"][0], arrays["x"][0])
    assert np.isnan(arrays["state"][1:]).all()
    assert np.isnan(arrays["out"][1:]).all()


def test_infinities_are_values():
    arrays = make((2, 1, 1, 8))
    arrays["x"][:, 0, 0, :3] = [np.inf, -np.inf, np.nan]
    expected = copied(arrays)
    launch(arrays)
    ema_update_twin(**expected)
    assert_same_bits(arrays["out"], expected["out"])
    assert_same_bits(arrays["state"], expected["state"])


def test_out_may_be_x_itself_or_the_residual_itself():
    for place in ("x", "residual"):
        arrays = make((2, 3, 4, 5), residual=True)
        expected = copied(arrays)
        arrays["out"] = arrays[place]
        launch(arrays)
        ema_update_twin(**expected)
        assert_same_bits(arrays["out"], expected["out"])


def test_a_float32_state_tracks_float64_over_1000_updates_where_a_float16_state_stalls():
    rng = np.random.default_rng(0)
    shape, weight = (1, 4, 4, 4), 0.01
    target = rng.uniform(0.5, 2, shape)
    exact = np.zeros(shape)
    half = np.zeros(shape, np.float16)
    arrays = make(shape)
    arrays["state"][:] = 0
    arrays["mix"][:] = weight
    for _ in range(1000):
        x = (target + rng.normal(0, 0.01, shape)).astype(np.float32)
        exact += np.float64(np.float32(weight)) * (x - exact)
        half = (half + np.float16(weight) * (x.astype(np.float16) - half)).astype(np.float16)
        arrays["x"][:] = x
        launch(arrays)
    assert np.abs(arrays["state"] / exact - 1).max() < 1e-5
    assert np.abs(half / exact - 1).max() > 1e-2


def test_a_4k_frame():
    arrays = make((1, 1, 2160, 3840), dtype=np.float16)
    expected = copied(arrays)
    launch(arrays)
    ema_update_twin(**expected)
    assert_same_bits(arrays["out"], expected["out"])


def test_an_empty_array_launches_nothing():
    launcher = HostLauncher()
    launch(make((0, 4, 2, 2)), launcher)
    assert launcher.launches == []


def shifted(array):
    memory = np.zeros(array.size * array.itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 16 + 4
    return memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("state", lambda a: a["state"].astype(np.float16), "state: float16 given, float32 expected"),
        ("x", lambda a: a["x"].astype(np.float64), "x: float64 given, float16 or float32 expected"),
        ("x", lambda a: a["x"][:1], r"x: shape \(1, 3, 4, 5\) given, \(2, 3, 4, 5\) expected"),
        ("mix", lambda a: a["mix"][:1], r"mix: shape \(1,\) given, \(2\) expected"),
        ("mix", lambda a: a["mix"].astype(np.float64), "mix: float64 given"),
        ("out", lambda a: np.zeros(a["out"].shape, np.int32), "out: int32 given, float32 expected"),
        ("out", lambda a: a["state"], "state: overlaps out"),
        ("x", lambda a: a["state"], "state: overlaps x"),
        ("residual", lambda a: a["x"].astype(np.float16), "residual: float16 given, float32 expected"),
        ("residual", lambda a: a["state"], "state: overlaps residual"),
        ("x", lambda a: shifted(a["x"]), "x: address 0x[0-9a-f]+ given, a multiple of 16 expected"),
        ("state", lambda a: a["state"][0], r"state: shape \(3, 4, 5\) given, \(any, any, any, any\) expected"),
    ],
)
def test_bad_arguments_are_refused_by_name_before_a_launch(name, change, sentence):
    arrays = make((2, 3, 4, 5), residual=True)
    arrays[name] = change(arrays)
    launcher = HostLauncher()
    with pytest.raises(ArgumentError, match=sentence):
        launch(arrays, launcher)
    assert launcher.launches == []


@pytest.mark.parametrize(("residual", "relu"), [(True, True), (False, False)])
def test_a_state_kept_after_a_relu_takes_that_relu_and_no_residual(residual, relu):
    launcher = HostLauncher()
    with pytest.raises(ArgumentError, match="rectified: the state is kept after the ReLU"):
        launch(make((1, 1, 2, 4), residual=residual), launcher, relu=relu, rectified=True)
    assert launcher.launches == []


def test_partly_overlapping_memory_is_refused():
    memory = aligned((128,), np.float32)
    arrays = make((1, 1, 8, 8))
    arrays["x"], arrays["out"] = memory[:64].reshape(1, 1, 8, 8), memory[60:124].reshape(1, 1, 8, 8)
    with pytest.raises(ArgumentError, match="out: overlaps x; each needs memory of its own"):
        launch(arrays)


def test_an_array_of_another_device_is_refused():
    arrays = make((1, 1, 1, 8))
    placed = {name: on_host(array) for name, array in arrays.items() if array is not None}
    placed["x"] = dataclasses.replace(placed["x"], device="GPU 1")
    with pytest.raises(ArgumentError, match="x: is on another device than the kernel"):
        ema_update(HostLauncher(), **placed)
