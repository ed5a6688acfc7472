"""Whole runs and loops: that a loop runs the network on each frame, and that ways take turns."""

import cv2
import numpy as np
import pytest

from salema.benchmarks.peers.network import load_network
from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.onnx_metadata import read_spec
from salema.training.shipping import run_speed
from salema.training.shipping.run_speed import _loop, _map_of, _published, _read, _stills, in_turns


@pytest.fixture(scope="module")
def narrow(exported):
    """A narrow model of the usual size, and its network in PyTorch."""
    folder = exported(imgsz_hw=(192, 256))
    return folder, load_network(read_spec(folder / "model.onnx"), None)


def test_ways_take_turns(monkeypatch):
    order, speeds = [], iter(range(1, 7))

    def way(name):
        def once():
            order.append(name)
            return float(next(speeds))

        return once

    monkeypatch.setattr(run_speed, "ROUNDS", 3)
    assert in_turns({"a": way("a"), "b": way("b")}) == {
        "a": {"fps": [1.0, 3.0, 5.0], "median": 3.0},
        "b": {"fps": [2.0, 4.0, 6.0], "median": 4.0},
    }
    assert order == ["a", "b"] * 3


def test_the_published_way_leaves_the_map_of_the_last_frame(narrow, small_clip, tmp_path):
    folder, network = narrow
    stills = _stills(small_clip, 3, tmp_path / "stills")
    assert _published(network, stills, tmp_path)() > 0
    with load(folder, backend="onnxruntime", device="cpu") as stream:
        *_, last = (stream.step(image) for image in _read(small_clip, 3))
    expected = np.round((last - last.min()) / (last.max() - last.min()) * 255)
    assert np.abs(cv2.imread(str(tmp_path / "map.png"), cv2.IMREAD_GRAYSCALE) - expected).max() <= 1


@pytest.mark.parametrize("peer", run_speed.LOOPS)
def test_a_loop_writes_a_picture_for_each_frame_but_the_first(narrow, small_clip, tmp_path, peer):
    assert _loop(peer, narrow[1], small_clip, 4, tmp_path)() > 0
    assert sum(1 for _ in _read(tmp_path / "loop.mp4", 99)) == 3


def test_a_flat_map_is_black():
    class Flat:
        """A network that sees nothing."""

        def infer(self, frames):
            return np.full((1, 192, 256), 0.5, np.float32)

    assert _map_of(Flat(), moving_disc(1, 64, 96)[0]).max() == 0
