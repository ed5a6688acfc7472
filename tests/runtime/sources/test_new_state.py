from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest
from played import play, times_s
from videos import DISC, copy, probe, write_clip

from salema.export.weights.seeded import moving_disc


def test_a_gap_in_time_starts_anew(tmp_path):
    """Ten frames, two seconds of nothing, ten frames; half a second is no gap."""
    pts = [*range(10), *range(60, 70), *range(82, 90)]
    clip = write_clip(tmp_path / "a.mkv", moving_disc(28, 64, 96), pts=pts, rate=Fraction(25))
    _, frames = play(clip)
    assert [index for index, frame in enumerate(frames) if frame.starts_anew] == [0, 10]


def test_a_jump_back_in_time_starts_anew(tmp_path):
    once = write_clip(tmp_path / "a.ts", np.repeat(DISC, 8, 0))
    (tmp_path / "twice.ts").write_bytes(once.read_bytes() * 2)
    playback, frames = play(tmp_path / "twice.ts")
    new = [index for index, frame in enumerate(frames) if frame.starts_anew]
    assert len(new) == 2
    assert 60 <= new[1] <= 64
    assert all(a < b for a, b in pairwise(times_s(playback, frames)))


@pytest.mark.parametrize("frames", [15, 4])
def test_joined_recordings_shorter_than_a_second_start_anew_and_keep_their_length(tmp_path, frames):
    once = write_clip(tmp_path / "a.ts", np.repeat(DISC, 2, 0)[:frames], audio="aac")
    (tmp_path / "joined.ts").write_bytes(once.read_bytes() * 3)
    playback, found = play(tmp_path / "joined.ts")
    assert [index for index, frame in enumerate(found) if frame.starts_anew] == [0, frames, 2 * frames]
    np.testing.assert_allclose(np.diff(times_s(playback, found)), 1 / 25, atol=1e-4)
    copy(tmp_path / "joined.ts", tmp_path / "b.mp4")
    after = probe(tmp_path / "b.mp4")
    assert after["duration_s"] == pytest.approx(3 * frames / 25, abs=0.03)
    assert after["sound_s"] == pytest.approx([3 * frames / 25], abs=0.08)


def test_a_frame_that_is_left_out_takes_its_gap_along(tmp_path):
    pts = [*range(10), *range(61, 71)]
    clip = write_clip(tmp_path / "a.mkv", moving_disc(20, 64, 96), pts=pts, rate=Fraction(25))
    _, frames = play(clip, stride=3)  # 0 3 6 9 | 12 15 18: the tenth is left out
    assert [index for index, frame in enumerate(frames) if frame.starts_anew] == [0, 4]


def test_another_size_starts_anew(tmp_path):
    """Two transport streams of different size, one after the other."""
    parts = [write_clip(tmp_path / f"{i}.ts", moving_disc(6, *size)) for i, size in enumerate([(64, 96), (48, 64)])]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    playback, frames = play(tmp_path / "both.ts")
    shapes = [frame.image_bgr.shape for frame in frames]
    change = shapes.index((48, 64, 3))
    assert set(shapes) == {(64, 96, 3), (48, 64, 3)}
    assert [index for index, frame in enumerate(frames) if frame.starts_anew] == [0, change]
    assert (playback.height, playback.width) == (64, 96)


def test_images_are_frames_and_a_change_of_size_starts_anew(tmp_path):
    for index, size in enumerate([(30, 40), (30, 40), (20, 25), (30, 40)]):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((*size, 3), index, np.uint8))
    playback, frames = play(tmp_path, fps=12.5)
    assert [frame.image_bgr.shape for frame in frames] == [(30, 40, 3), (30, 40, 3), (20, 25, 3), (30, 40, 3)]
    assert [frame.starts_anew for frame in frames] == [True, False, True, True]
    assert times_s(playback, frames) == pytest.approx(np.arange(4) / 12.5)
    assert (playback.rate, playback.frame_count) == (Fraction(25, 2), 4)
    _, again = play(tmp_path, loop=2, stride=2)
    assert [frame.image_bgr[0, 0, 0] for frame in again] == [0, 2, 0, 2]
