import threading
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from played import play, times_s
from videos import DISC, probe, write_clip

from salema.export.weights.seeded import moving_disc
from salema.runtime.errors import UsageError, VideoError
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import find_sources
from salema.runtime.video.video_reader import VideoReader


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Fifty frames at 25 a second, whose left upper corner tells their number."""
    frames = moving_disc(50, 64, 96)
    for index, frame in enumerate(frames):
        frame[:16, :16] = 5 * index
    return write_clip(tmp_path_factory.mktemp("clips") / "a.mp4", frames, options={"g": "20"})


def numbers(frames):
    return [round((frame.image_bgr[2:14, 2:14].mean() + 2.4) / 5) for frame in frames]


def test_the_whole_clip(clip):
    playback, frames = play(clip)
    assert numbers(frames) == list(range(50))
    assert times_s(playback, frames) == pytest.approx(np.arange(50) / 25)
    assert [frame.starts_anew for frame in frames] == [True] + 49 * [False]
    assert (playback.frame_count, playback.rate, playback.is_live, playback.sound) == (50, 25, False, None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"start_s": 0.5}, range(13, 50)),
        ({"start_s": 0.48}, range(12, 50)),
        ({"duration_s": 0.4}, range(10)),
        ({"start_s": 1.0, "duration_s": 0.2}, range(25, 30)),
        ({"stride": 7}, range(0, 50, 7)),
        ({"max_frames": 3}, range(3)),
        ({"start_s": 0.4, "duration_s": 1.0, "stride": 5, "max_frames": 4}, range(10, 30, 5)),
    ],
)
def test_a_part_of_it_begins_at_time_zero(clip, options, expected):
    playback, frames = play(clip, **options)
    assert numbers(frames) == list(expected)
    stride = options.get("stride", 1)
    assert times_s(playback, frames) == pytest.approx(np.arange(len(frames)) * stride / 25)
    ticks = [frame.duration * playback.time_base * 25 for frame in frames]
    whole = len(frames) == options.get("max_frames")  # the frame after the last one is there
    assert ticks == [stride] * (len(frames) - 1) + [stride if whole else expected.stop - expected[-1]]
    assert playback.rate == Fraction(25, stride)
    assert abs(playback.frame_count - len(frames)) <= 1
    assert frames[0].starts_anew
    assert not any(frame.starts_anew for frame in frames[1:])


def length_s(playback, frames):
    return float((frames[-1].pts + frames[-1].duration) * playback.time_base)


def test_a_stride_leaves_the_length_as_it_is(clip):
    assert length_s(*play(clip, stride=7)) == 2.0
    playback, frames = play(clip, stride=7, loop=3)
    assert length_s(playback, frames) == 6.0
    assert times_s(playback, frames)[8::8] == [2.0, 4.0]
    assert length_s(*play(clip, stride=7, duration_s=0.8)) == 0.8


def test_a_stride_over_uneven_times(tmp_path):
    """Each frame lasts until the next one that is taken, the last one until the end."""
    uneven = write_clip(tmp_path / "u.mp4", moving_disc(8, 64, 96), pts=[0, 1, 5, 6, 12, 13, 14, 20])
    playback, frames = play(uneven, stride=3)
    assert [round(25 * time_s) for time_s in times_s(playback, frames)] == [0, 6, 14]
    assert [round(25 * frame.duration * playback.time_base) for frame in frames] == [6, 8, 7]


def test_a_duration_cuts_a_long_frame_short(tmp_path):
    slow = write_clip(tmp_path / "u.mp4", moving_disc(4, 64, 96), pts=[0, 50, 100, 150])
    assert length_s(*play(slow, duration_s=3.0)) == 3.0


def test_a_stride_keeps_the_last_frame_of_a_file_that_breaks_off(tmp_path):
    for index in range(6):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((16, 16, 3), index, np.uint8))
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:-20])
    (source,) = find_sources([str(tmp_path)])
    with Playback(source, Selection(stride=3, fps=10, strict=True)) as playback:
        found = []
        with pytest.raises(VideoError, match="4.png: breaks off"):
            found.extend(playback)
    assert [(frame.pts, frame.duration) for frame in found] == [(0, 3), (3, 1)]


def test_a_loop_goes_on_in_time_with_a_new_state_each_time(clip):
    playback, frames = play(clip, loop=3, duration_s=0.4)
    assert numbers(frames) == 3 * list(range(10))
    assert times_s(playback, frames) == pytest.approx(np.arange(30) / 25)
    assert [index for index, frame in enumerate(frames) if frame.starts_anew] == [0, 10, 20]
    assert playback.frame_count == 30


def test_a_loop_without_end_ends_with_a_stop(clip):
    (source,) = find_sources([str(clip)])
    stop = threading.Event()
    with Playback(source, Selection(loop=0, duration_s=0.4), stop) as playback:
        assert playback.frame_count is None
        for index, frame in enumerate(playback):
            assert frame.pts * playback.time_base == Fraction(index, 25)
            if index == 95:
                stop.set()
        assert index == 95


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_a_start_far_on_is_the_same_frame_as_when_all_is_decoded(tmp_path, name):
    """After five seconds the file is entered at a key frame; the frames must not depend on that."""
    frames = np.repeat(moving_disc(2, 32, 48)[:1], 220, 0)
    for index, frame in enumerate(frames):
        frame[:16] = index
    options = {"g": "50", **({"bf": "0"} if name.endswith("avi") else {})}
    clip = write_clip(tmp_path / name, frames, options=options)
    with VideoReader(clip) as reader:
        wanted = [frame.image_bgr for frame in reader if frame.pts * reader.time_base >= 6.5 - 1e-6]
    _, found = play(clip, start_s=6.5)
    assert len(found) == len(wanted)
    for frame, image in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(frame.image_bgr, image)


def test_a_start_past_the_end(clip):
    with pytest.raises(VideoError, match=r"a\.mp4: has no frame at --start-time 9 or after"):
        play(clip, start_s=9)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"start_s": -1}, "--start-time -1: give seconds, 0 to 1e"),
        ({"start_s": float("nan")}, "--start-time nan"),
        ({"duration_s": 0}, "--duration 0: give seconds, 0.001 to 1e"),
        ({"duration_s": 1e-7}, "--duration 1e-07"),
        ({"stride": 0}, "--vid-stride 0: give a whole number, 1 to 100000"),
        ({"max_frames": 0}, "--max-frames 0"),
        ({"loop": -1}, "--loop -1: give a whole number, 0 to"),
        ({"fps": 0}, "--fps 0"),
        ({"fps": 0.0004}, "--fps 0.0004: give frames per second, 0.001 to 1000"),
        ({"start_s": 1e13}, r"--start-time 1e\+13"),
        ({"stride": 10**23}, "--vid-stride 1000"),
        ({"reconnects": -1}, "--reconnects -1"),
    ],
)
def test_selections_that_cannot_be(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        Selection(**options)


def test_reading_on_after_the_end_is_an_end(clip):
    """FFmpeg would crash."""
    (source,) = find_sources([str(clip)])
    playback = Playback(source)
    frames = iter(playback)
    next(frames)
    next(frames)
    playback.close()
    assert list(frames) == []
    reader = VideoReader(clip)
    frames = iter(reader)
    next(frames)
    reader.close()
    assert list(frames) == []


def test_a_loop_that_is_ended_is_not_opened_again(clip, monkeypatch):
    """Otherwise the reading thread would open the file over and over, and never end."""
    (source,) = find_sources([str(clip)])
    opened = []
    read = VideoReader.__init__

    def count(*args, **named):
        opened.append(1)
        assert len(opened) == 1
        read(*args, **named)

    monkeypatch.setattr(VideoReader, "__init__", count)
    with Playback(source, Selection(loop=0)) as playback:
        frames = iter(playback)
        next(frames)
        playback.end()
        assert list(frames) == []
    assert opened == [1]


def test_a_stop_ends_a_search_for_the_first_frame(clip):
    (source,) = find_sources([str(clip)])
    stop = threading.Event()
    stop.set()
    with pytest.raises(VideoError, match="stopped before its first frame"):
        Playback(source, Selection(start_s=100, loop=0), stop)


def test_a_loop_over_what_gives_no_frame_any_more_ends(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", moving_disc(20, 64, 96))
    (source,) = find_sources([str(clip)])
    with Playback(source, Selection(loop=0, start_s=0.6)) as playback:
        seen = []
        with pytest.raises(VideoError, match=r"a\.mp4: gave no frame when it was played again"):
            for frame in playback:
                seen.append(frame)
                if len(seen) == 2:
                    short = write_clip(tmp_path / "b.mp4", moving_disc(5, 64, 96))
                    short.replace(clip)
    assert len(seen) == 5


@pytest.mark.parametrize(("codec", "start_s"), [("aac", 1.0), ("aac", 6.6), ("mp2", 6.6), ("libopus", 6.6)])
def test_sound_begins_where_the_pictures_do(cli, model, tmp_path, codec, start_s):
    """Key frames are four seconds apart, and the file is entered at one: no sound before the start may come."""
    from salema.runtime.cli.run import main

    suffix = {"aac": "mp4", "mp2": "avi", "libopus": "mkv"}[codec]
    rate = 48000 if codec == "libopus" else 44100
    clip = write_clip(
        tmp_path / f"a.{suffix}", np.repeat(DISC, 25, 0), audio=codec, audio_rate=rate, options={"bf": "0", "g": "100"}
    )
    arguments = (clip, "--model", model, "-o", tmp_path / "b.mp4", "--start-time", start_s, "--duration", 1)
    assert cli(main, *arguments).code == 0
    after = probe(tmp_path / "b.mp4")
    assert len(after["images"]) == 25
    assert after["sound_s"][0] == pytest.approx(1, abs=0.1)
    assert after["sound_start_s"][0] == pytest.approx(0, abs=0.05)
    with av.open(str(tmp_path / "b.mp4")) as container:
        stamps = [float(packet.pts * packet.time_base) for packet in container.demux(audio=0) if packet.size]
    assert -0.06 < stamps[0] < 0.06
    with av.open(str(tmp_path / "b.mp4")) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=44100)
        decoded = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    samples = np.concatenate([frame.to_ndarray()[0] for frame in decoded])
    loud = np.abs(samples[2205:37485]).reshape(-1, 2205).max(axis=1)  # twentieths of a second
    assert loud.min() > 0.2
