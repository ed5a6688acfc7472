"""docs/triton_client.py against a server with Triton's protocol, which runs the emitted model."""

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tritonclient.grpc as triton
from triton_server import serving

from salema.runtime import load
from salema.runtime.postprocess import to_grey

CLIENT = str(Path(__file__).parents[3] / "docs/triton_client.py")


@pytest.fixture
def frames():
    return [np.random.default_rng(n).integers(0, 256, (90, 130, 3), np.uint8) for n in range(4)]


def test_its_maps_are_those_of_salema_run(repository, tmp_path, frames, monkeypatch):
    for number, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"{number}.png"), frame)
    folder = repository()
    with serving(folder / "triton/salema") as (url, batcher):
        arguments = [str(tmp_path / "%d.png"), str(tmp_path / "maps"), "--url", url, "--sequence", "5"]
        monkeypatch.setattr(sys, "argv", [CLIENT, *arguments])
        runpy.run_path(CLIENT, run_name="__main__")
    assert len(batcher.batches) == 5  # one is the warm-up
    assert (len(batcher.free), batcher.slot_of) == (64, {})  # the last frame has ended the sequence
    with load(folder, backend="onnxruntime") as stream:
        for number, frame in enumerate(frames, 1):
            expected = to_grey(stream.step(frame))
            seen = cv2.imread(str(tmp_path / f"maps/{number:04}.png"), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(seen, expected)


def test_a_stream_that_was_idle_starts_anew(repository, frames):
    stream_of = runpy.run_path(CLIENT)["Stream"]
    folder = repository()
    with serving(folder / "triton/salema") as (url, batcher), triton.InferenceServerClient(url) as client:
        stream = stream_of(client, "salema", 3)
        seen = [stream.step(frame) for frame in frames[:2]]
        batcher.wait(11)
        seen += [stream.step(frame) for frame in frames[2:]]
    with load(folder, backend="onnxruntime") as alone:
        expected = [alone.step(frame) for frame in frames[:2]]
        alone.reset()
        expected += [alone.step(frame) for frame in frames[2:]]
    np.testing.assert_allclose(seen, expected, atol=1e-6)


def test_clients_without_a_number_share_no_memory(repository, tmp_path, frames, monkeypatch):
    cv2.imwrite(str(tmp_path / "0.png"), frames[0])
    with serving(repository() / "triton/salema") as (url, batcher):
        arguments = [str(tmp_path / "%d.png"), str(tmp_path / "maps"), "--url", url]
        monkeypatch.setattr(sys, "argv", [CLIENT, *arguments])
        for _ in range(2):
            runpy.run_path(CLIENT, run_name="__main__")
    assert len(batcher.last_us) == 2
    assert all(0 < sequence < 1 << 63 for sequence in batcher.last_us)


def test_a_video_that_is_none_is_a_sentence(repository, tmp_path, monkeypatch):
    with serving(repository() / "triton/salema") as (url, _):
        monkeypatch.setattr(sys, "argv", [CLIENT, "absent.mp4", str(tmp_path / "maps"), "--url", url])
        with pytest.raises(SystemExit, match=r"^absent\.mp4: no such video, or none that OpenCV can read$"):
            runpy.run_path(CLIENT, run_name="__main__")
