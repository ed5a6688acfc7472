"""The weights that come with the package: what they are, and that they find what people look at."""

import cv2
import numpy as np
import pytest
from safetensors import safe_open

from salema.export.weights.architecture import Architecture
from salema.export.weights.checkpoints import SHIPPED, load_checkpoint, shipped_names
from salema.runtime import load
from salema.runtime.errors import CheckpointError

MOST_BYTES = {"nano": 1_000_000, "small": 4_000_000}


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_weights_are_small_trained_and_hold_no_pickle(name):
    path = SHIPPED / f"{name}.safetensors"
    assert path.stat().st_size <= MOST_BYTES[name]
    with safe_open(path, framework="np") as file:
        types = {key: file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118 - the file is no dict
    assert types.pop("alpha") == np.float32
    assert set(types.values()) == {np.dtype("float16")}
    checkpoint = load_checkpoint(name)
    assert (checkpoint.name, checkpoint.trained) == (name, True)
    assert checkpoint.hint.architecture == Architecture("salema", (30,))


def test_nano_is_the_shipped_one_wherever_a_file_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano").write_bytes(b"not weights")
    assert load_checkpoint("nano").trained
    with pytest.raises(CheckpointError, match="not a PyTorch"):
        load_checkpoint("./nano")


def test_an_unknown_word_names_those_that_ship():
    with pytest.raises(
        CheckpointError, match=r"nanoo: no such file; give a checkpoint, an http.*'nano'.* that ship, or"
    ):
        load_checkpoint("nanoo")


def test_the_learned_coefficient_is_exported(nano_model):
    with load(nano_model) as stream:
        assert stream.spec.trained
        assert stream.spec.coefficient_source.startswith("sigmoid of the checkpoint's learned alpha")
        assert (stream.spec.weights, stream.spec.architecture) == ("nano", "SalEMA30")


@pytest.mark.parametrize("place", [(0.3, 0.35), (0.7, 0.4), (0.4, 0.7), (0.65, 0.65)])
def test_the_map_peaks_at_the_one_object_of_a_picture(nano_model, place):
    """A disc on a smooth background, wherever it is: a centre prior fails."""
    height, width = 360, 480
    rows, columns = np.mgrid[:height, :width]
    frame = np.stack([150 + rows // 12, 140 + columns // 20, 120 + rows // 20], 2).astype(np.uint8)
    centre = (round(place[0] * width), round(place[1] * height))
    cv2.circle(frame, centre, 45, (40, 40, 220), -1)
    cv2.circle(frame, centre, 20, (250, 250, 250), -1)
    with load(nano_model) as stream:
        saliency = stream.step(frame)
    row, column = np.unravel_index(saliency.argmax(), saliency.shape)
    at = (column / saliency.shape[1] * width, row / saliency.shape[0] * height)
    assert np.hypot(at[0] - centre[0], at[1] - centre[1]) < 40
