"""Which frames INT8 is calibrated and checked on."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
from int8_model import SIZE_HW
from videos import write_clip

from salema.export.int8 import footage as footage_module
from salema.export.int8.footage import gather
from salema.export.weights.seeded import moving_disc
from salema.runtime.errors import UsageError, VideoError
from salema.runtime.sources.source import Source


def test_frames_are_spread_and_none_is_held_out_that_is_calibrated_on(clip, tmp_path):
    (tmp_path / "images").mkdir()
    for t in range(48):
        cv2.imwrite(str(tmp_path / f"images/{t:04d}.png"), np.full((*SIZE_HW, 3), t, np.uint8))
    footage = gather(str(tmp_path / "images"), 24, *SIZE_HW)
    assert [run[:, 0, 0, 0].tolist() for run in footage.runs] == [list(range(16)), list(range(20, 28))]
    assert footage.held_out[:, 0, 0, 0].tolist() == list(range(32, 48))
    assert footage.held_out.shape == (16, *SIZE_HW, 3)
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(clip.read_bytes())
    both = gather(str(tmp_path), 40, *SIZE_HW)
    assert ([len(run) for run in both.runs], len(both.sources)) == ([16, 8, 16], 2)
    assert len(both.held_out) == 32


def test_a_calibration_image_that_cannot_be_read_is_named_and_not_missed(tmp_path):
    for number in range(40):
        cv2.imwrite(str(tmp_path / f"{number:04d}.png"), np.full((*SIZE_HW, 3), number, np.uint8))
    (tmp_path / "0003.png").write_bytes(b"no image")
    with pytest.raises(VideoError, match=r"0003\.png: can't be read as an image"):
        gather(str(tmp_path), 24, *SIZE_HW)


def numbered(path, pts):
    """A video whose frames tell their number by their grey, at 20 a second; `pts` are their times in frames."""
    frames = np.empty((len(pts), *SIZE_HW, 3), np.uint8)
    frames[:] = np.arange(len(pts), dtype=np.uint8)[:, None, None, None] * 4 + 5
    write_clip(path, frames, rate=Fraction(20), pts=pts)
    return str(path)


def numbers(frames):
    return np.rint((frames.mean((1, 2, 3)) - 2.5) / 4).astype(int).tolist()  # H.264 makes them darker by 2 or 3


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_frames_of_a_video_are_spread_as_those_of_a_folder(tmp_path, name):
    footage = gather(numbered(tmp_path / name, range(48)), 24, *SIZE_HW)
    assert [numbers(run) for run in footage.runs] == [list(range(16)), list(range(20, 28))]
    assert numbers(footage.held_out) == list(range(32, 48))


def test_held_out_frames_of_an_uneven_video_are_not_calibrated_on(tmp_path):
    """The first half in a second, the rest ever slower: frames are not where the mean rate puts them."""
    times = [*range(30), *(30 + 3 * late for late in range(30))]
    footage = gather(numbered(tmp_path / "a.mp4", times), 32, *SIZE_HW)
    runs, held_out = [numbers(run) for run in footage.runs], numbers(footage.held_out)
    assert held_out[-1] == 59
    flat = [number for run in runs for number in run] + held_out
    assert flat == sorted(set(flat))
    assert 16 <= footage.count == sum(map(len, runs)) < 32
    times = [*range(56), 2000, 2001, 2002, 4000]
    with pytest.raises(
        VideoError, match=r"lie unevenly in time, .* only \d+ of 32 to calibrate on and \d+ to check on"
    ):
        gather(numbered(tmp_path / "b.mp4", times), 32, *SIZE_HW)


def test_of_many_videos_some_from_all_over_the_list_are_chosen(tmp_path, monkeypatch):
    """Sources from all over a long list, in turns."""
    sources = [Source("video", f"{index}.mp4", str(index)) for index in range(20_000)]
    monkeypatch.setattr(footage_module, "_look_at", lambda source: footage_module._Clip(source, 48, Fraction(25)))
    chosen = footage_module._choose(sources, 64)
    assert [clip.source.shown for clip in chosen] == ["0.mp4", "5000.mp4", "10000.mp4", "15000.mp4"]


def test_footage_refuses_what_has_too_few_frames(tmp_path):
    short = write_clip(tmp_path / "short.mp4", moving_disc(12, *SIZE_HW))
    with pytest.raises(VideoError, match="has 12 frames; --calib-frames 64 takes 96"):
        gather(str(short), 64, *SIZE_HW)
    with pytest.raises(UsageError, match="give a video file"):
        gather("-", 64, *SIZE_HW)
    assert footage_module.LEAST_HELD_OUT == 8
