import cv2
import numpy as np
import pytest
import torch

from salema.kernels.twins import postprocess as twins
from salema.runtime.postprocess import Look, render, to_grey, to_levels


def test_normalise_stretches_to_the_unit_interval():
    saliency = np.float32([[0.25, 0.5], [0.75, 0.5]])
    assert to_grey(saliency).tolist() == [[0, 128], [255, 128]]  # 127.5 goes up
    assert to_grey(saliency).dtype == np.uint8


def published_levels(saliency):
    """Min-max, and what torchvision's `save_image` does to it."""
    tensor = torch.from_numpy(saliency)
    tensor = (tensor - tensor.min()) / (tensor.max() - tensor.min())
    return tensor.mul(255).add(0.5).clamp(0, 255).to(torch.uint8).numpy()


def maps_with_halves():
    """Maps on which rounding to even, or in float64, gives other levels."""
    halves = (np.arange(511) / 510).astype(np.float32)
    noise = np.random.default_rng(0).random((192, 2560), np.float32)
    near = np.nextafter(halves, np.float32(0))
    return [np.stack([halves, near]), noise, noise * np.float32(0.3) + np.float32(0.1)]


@pytest.mark.parametrize("index", range(3))
def test_levels_round_as_the_published_code_does(index):
    saliency = maps_with_halves()[index]
    found, expected = to_grey(saliency), published_levels(saliency)
    np.testing.assert_array_equal(found, expected)
    stretched = (saliency - saliency.min()) / (saliency.max() - saliency.min()) * np.float32(255)
    assert (np.rint(stretched) != expected).any()  # to the nearest even would not do


@pytest.mark.parametrize("index", range(3))
def test_the_kernels_twin_rounds_alike(index):
    saliency = maps_with_halves()[index]
    out = np.empty(saliency.shape, np.uint8)
    twins.postprocess(saliency, np.float32([saliency.min(), saliency.max()]), out, view="map8")
    np.testing.assert_array_equal(out, to_grey(saliency))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_flat_map_gives_zeros(value):
    assert not to_grey(np.full((4, 6), value, np.float32)).any()


def test_levels_of_16_bits_and_of_other_limits():
    saliency = np.float32([[0.25, 0.5], [0.75, 1.0]])
    limits = (np.float32(0.5), np.float32(0.75))
    assert to_levels(saliency, limits).tolist() == [[0, 0], [255, 255]]
    levels = to_levels(saliency, (np.float32(0), np.float32(1)), 16)
    assert (levels.dtype, levels.tolist()) == (np.uint16, [[16384, 32768], [49151, 65535]])
    assert not to_levels(saliency, (np.float32(0.5), np.float32(0.5)), 16).any()


def test_a_map_is_drawn_as_grey_at_the_size_of_the_frame():
    frame = np.full((20, 30, 3), 200, np.uint8)
    picture = render(frame, np.full((4, 6), 77, np.uint8), Look("map"))
    assert picture.shape == (20, 30, 3)
    assert (picture == 77).all()


def test_an_overlay_is_half_frame_half_heat():
    frame = np.full((20, 30, 3), 200, np.uint8)
    grey = np.zeros((4, 6), np.uint8)
    grey[:, 3:] = 255
    picture = render(frame, grey, Look("overlay")).astype(int)
    cold, hot = (cv2.applyColorMap(np.uint8([[value]]), cv2.COLORMAP_JET)[0, 0].astype(int) for value in (0, 255))
    assert np.abs(picture[0, 0] - (200 + cold) / 2).max() <= 1
    assert np.abs(picture[0, -1] - (200 + hot) / 2).max() <= 1


def test_side_by_side_keeps_the_frame():
    frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    grey = np.zeros((4, 6), np.uint8)
    picture = render(frame, grey, Look("side-by-side"))
    np.testing.assert_array_equal(picture[:, :30], frame)
    np.testing.assert_array_equal(picture[:, 30:], render(frame, grey, Look("overlay")))
