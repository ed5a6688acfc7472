"""OpenCV's capture, with files, which it opens like cameras: the tests run without a camera."""

import time

import cv2
import numpy as np
import pytest
from videos import DISC, write_clip

from salema.runtime.cli.run import main
from salema.runtime.errors import VideoError
from salema.runtime.sources.camera import CameraReader
from salema.runtime.sources.source import find_sources


def test_frames_come_with_the_time_they_came_at(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", DISC)
    reader = CameraReader(str(clip))
    assert (reader.height, reader.width, reader.rate, reader.is_live) == (64, 96, 25, True)
    seen, start = [], time.monotonic()
    with pytest.raises(VideoError, match="gives no more pictures; is it unplugged"):
        for frame in reader:
            seen.append((frame, 1000 * (time.monotonic() - start)))
            time.sleep(0.03)
    reader.close()
    assert len(seen) == 8
    assert [frame.starts_anew for frame, _ in seen] == [True] + 7 * [False]
    for frame, at_ms in seen:
        assert frame.pts == pytest.approx(at_ms, abs=25)
    capture = cv2.VideoCapture(str(clip))
    np.testing.assert_array_equal(seen[0][0].image_bgr, capture.read()[1])


def test_a_camera_that_is_not_there(cli, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for camera, name in (("97", "camera 97"), ("/dev/video97", "/dev/video97")):
        ran = cli(main, camera, "--model", model)
        assert ran.code == 1
        assert ran.err.splitlines()[-1].startswith(f"salema-run: {name}: no such camera, or it gives no picture")
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_a_camera_is_that_camera(tmp_path):
    """Such as those in /dev/v4l/by-id; it is opened by its own name."""
    (tmp_path / "usb-cam-index0").symlink_to("/dev/video7")
    (source,) = find_sources([str(tmp_path / "usb-cam-index0")])
    assert (source.kind, source.name, source.given) == ("camera", "camera7", str(tmp_path / "usb-cam-index0"))
