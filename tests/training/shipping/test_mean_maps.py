import numpy as np
import pytest

from salema.training.data.photographs import Photographs
from salema.training.data.taught import TaughtMaps
from salema.training.data.views import View
from salema.training.shipping import mean_maps
from salema.training.shipping.mean_maps import mean_map, open_network, write_maps

SIZE_HW = (48, 64)


@pytest.fixture(autouse=True)
def small_size(monkeypatch):
    monkeypatch.setattr(mean_maps, "SIZE_HW", SIZE_HW)


def frame_of(photographs, index=0):
    (seen,) = Photographs(photographs).seen(index)
    return seen.frame


def test_a_mirrored_frame_has_the_mirrored_map(photographs):
    networks = [open_network("nano"), open_network("seeded:16")]
    frame = frame_of(photographs)
    found = mean_map(networks, frame)
    assert (found.shape, found.dtype) == (SIZE_HW, np.float32)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(mean_map(networks, frame[:, ::-1]) - found[:, ::-1]).max() < 1e-2 * found.max()
    one, other = (mean_map([network], frame) for network in networks)
    assert np.abs(found - (one + other) / 2).max() < 1e-2 * found.max()
    assert np.abs(one - other).max() > 0.1 * found.max()


def test_maps_are_where_training_looks_for_them(photographs, tmp_path):
    gaze = Photographs(photographs)
    write_maps(gaze, [open_network("nano")], tmp_path)
    shot = gaze.clip(3, 0, 1, SIZE_HW, None).shots
    assert shot[0].view == View()
    expected = mean_map([open_network("nano")], frame_of(photographs, 3))
    scaled = (expected - expected.min()) / (expected.max() - expected.min())
    assert np.abs(TaughtMaps(tmp_path, gaze).of(shot, SIZE_HW)[0] - scaled).max() < 1e-2
