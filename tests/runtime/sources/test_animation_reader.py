"""Animated images as videos, with the times in their files."""

import cv2
import numpy as np
import pytest
from played import play

from salema.runtime.errors import MissingDependencyError, VideoError

LEVELS, DURATIONS_MS = (10, 90, 200, 60), (100, 250, 40, 110)


def write_animation(path, size_hw=(64, 96)):
    animation = cv2.Animation()
    animation.frames = [np.full((*size_hw, 3), level, np.uint8) for level in LEVELS]
    animation.durations = np.array(DURATIONS_MS)
    assert cv2.imwriteanimation(str(path), animation, [cv2.IMWRITE_WEBP_QUALITY, 101] if "webp" in path.name else [])
    return path


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.gif"])
def test_each_frame_is_shown_as_long_as_the_file_says(tmp_path, name):
    playback, frames = play(write_animation(tmp_path / name))
    assert [round(frame.image_bgr.mean()) for frame in frames] == pytest.approx(LEVELS, abs=2)
    assert frames[0].image_bgr.shape == (64, 96, 3)
    starts = np.cumsum([0, *DURATIONS_MS[:-1]]) / 1000
    assert [float(frame.pts * playback.time_base) for frame in frames] == pytest.approx(starts)
    assert [float(frame.duration * playback.time_base) for frame in frames] == pytest.approx(
        np.array(DURATIONS_MS) / 1000, abs=0.011
    )


def test_an_animated_webp_can_be_looped(tmp_path):
    playback, frames = play(write_animation(tmp_path / "a.webp"), loop=2)
    assert (playback.rate, playback.frame_count, len(frames)) == (8, 8, 8)
    assert float(frames[4].pts * playback.time_base) == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["a.webp", "a.png"])
def test_still_ones_are_one_frame(tmp_path, name):
    cv2.imwrite(str(tmp_path / name), np.full((64, 96, 3), 90, np.uint8))
    _, frames = play(tmp_path / name)
    assert [round(frame.image_bgr.mean()) for frame in frames] == pytest.approx([90], abs=2)


def test_a_damaged_animation_is_one_sentence(tmp_path):
    path = write_animation(tmp_path / "a.webp")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(
        VideoError, match=r"a\.webp: can't be read as an animated WebP; copy it again, or make a new one"
    ):
        play(path)


def test_a_bomb_of_frames_is_not_decoded(tmp_path):
    path = write_animation(tmp_path / "a.webp")
    data = bytearray(path.read_bytes())
    data[24:30] = (9999).to_bytes(3, "little") * 2
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"a\.webp: is 10000x10000 with 4 frames, too much to decode at once"):
        play(path)


def test_an_old_opencv_is_named(tmp_path, monkeypatch):
    path = write_animation(tmp_path / "a.webp")
    monkeypatch.delattr(cv2, "imdecodeanimation")
    with pytest.raises(MissingDependencyError, match="reads no animated WebP; install a newer one with: pip"):
        play(path)
