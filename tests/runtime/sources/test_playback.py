import threading
from fractions import Fraction
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
from videos import DISC, damage, probe, write_clip

from salema.export.weights.seeded import moving_disc
from salema.runtime.errors import UsageError, VideoError
from salema.runtime.sources.image_reader import read_image
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.readers import open_reader
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import find_sources
from salema.runtime.video.damage import Damage
from salema.runtime.video.video_reader import VideoReader


def play(path, **options):
    (source,) = find_sources([str(path)])
    with Playback(source, Selection(**options)) as playback:
        return playback, list(playback)


def times_s(playback, frames):
    return [float(frame.pts * playback.time_base) for frame in frames]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Fifty frames at 25 a second, whose left upper corner tells their number."""
    frames = moving_disc(50, 64, 96)
    for index, frame in enumerate(frames):
        frame[:16, :16] = 5 * index
    return write_clip(tmp_path_factory.mktemp("clips") / "a.mp4", frames, options={"g": "20"})


def numbers(frames):
    return [round((frame.image_bgr[2:14, 2:14].mean() + 2.4) / 5) for frame in frames]


def test_all_of_it(clip):
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
    """Past five seconds the file is entered at a key frame; what comes must not depend on that."""
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
    """Otherwise the thread that reads would open the file over and over, and never look up."""
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


def test_an_image_with_more_pixels_than_opencv_takes(tmp_path):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "1.png").write_bytes(png)
    with pytest.raises(VideoError, match=r"1\.png: is 100000x100000 by its header"):
        play(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_half_an_image_is_not_made_up(tmp_path, suffix):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    whole, half = tmp_path / f"0.{suffix}", tmp_path / f"1.{suffix}"
    cv2.imwrite(str(whole), image)
    data = whole.read_bytes()
    whole.write_bytes(data + bytes(2 * len(data)))  # some programs write more after the end
    half.write_bytes(data[: len(data) * 3 // 4])
    assert read_image(whole).shape == (40, 60, 3)
    (source,) = find_sources([str(half)])  # alone too
    with pytest.raises(VideoError, match=rf"1\.{suffix}: breaks off"):
        Playback(source)
    with pytest.raises(VideoError, match=rf"1\.{suffix}: breaks off"):
        read_image(half)


GIVE = "give a whole PNG, JPEG, BMP, TIFF or WebP"


def write_images(folder, count, damaged):
    for index in range(count):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((8, 8, 3), index, np.uint8))
    for index in damaged:
        (folder / f"{index}.png").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize(
    ("damaged", "expected"),
    [
        ([2], [(0, 1), (1, 2), (3, 1), (4, 1)]),
        ([3, 4], [(0, 1), (1, 1), (2, 3)]),
        ([0, 2], [(1, 2), (3, 1), (4, 1)]),
        ([0, 1, 2, 4], [(3, 2)]),
    ],
)
def test_a_damaged_image_is_left_out_and_its_time_passes(tmp_path, damaged, expected):
    playback, frames = play(write_images(tmp_path, 5, damaged), fps=10)
    assert [(frame.pts, frame.duration) for frame in frames] == expected
    assert [frame.image_bgr[0, 0, 0] for frame in frames] == [pts for pts, _ in expected]
    assert [frame.starts_anew for frame in frames] == [True] + [False] * (len(expected) - 1)
    assert (playback.damage.images, playback.damage.first_s) == (len(damaged), damaged[0] / 10)
    assert playback.damage.why == f"{tmp_path}/{damaged[0]}.png: can't be read as an image; {GIVE}"
    _, frames = play(tmp_path, fps=10, loop=2)
    assert [frame.pts for frame in frames] == [pts + start for start in (0, 5) for pts, _ in expected]


def test_more_than_a_second_of_damaged_images_is_a_gap(tmp_path):
    _, frames = play(write_images(tmp_path, 9, [1, 2, 4, 5, 6]), fps=2)
    assert [(frame.pts, frame.starts_anew) for frame in frames] == [(0, True), (3, False), (7, True), (8, False)]


def test_with_strict_a_damaged_image_ends_the_video_there(tmp_path):
    (source,) = find_sources([str(write_images(tmp_path, 4, [2]))])
    seen = []
    with (
        Playback(source, Selection(strict=True)) as playback,
        pytest.raises(VideoError, match=r"2\.png: can't be read as an image"),
    ):
        seen.extend(playback)
    assert [frame.pts for frame in seen] == [0, 1]


def test_images_of_which_none_can_be_read(tmp_path):
    (source,) = find_sources([str(write_images(tmp_path, 3, range(3)))])
    for loop in (0, 1):
        with pytest.raises(VideoError, match=r"0\.png: can't be read .*; none of 3 images can be read"):
            Playback(source, Selection(loop=loop))


def test_a_loop_over_what_gives_no_frame_any_more_ends(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", moving_disc(20, 64, 96))
    (source,) = find_sources([str(clip)])
    with Playback(source, Selection(loop=0, start_s=0.6)) as playback:
        seen = []
        with pytest.raises(VideoError, match=r"a\.mp4: gives no frame any more when it is played again"):
            for frame in playback:
                seen.append(frame)
                if len(seen) == 2:
                    short = write_clip(tmp_path / "b.mp4", moving_disc(5, 64, 96))
                    short.replace(clip)
    assert len(seen) == 5


@pytest.mark.parametrize("kind", ["video", "images"])
def test_a_stop_ends_a_search_through_damage(tmp_path, kind):
    """The search would read all of a file, however large, before anybody looked up."""
    is_folder = kind == "images"
    damaged = (
        write_images(tmp_path, 8, range(8)) if is_folder else damage(write_clip(tmp_path / "a.mp4", DISC), range(8))
    )
    (source,) = find_sources([str(damaged)])
    seen, stop = Damage(), threading.Event()
    with pytest.raises(VideoError):
        open_reader(source, Selection(loop=0), stop, seen)
    assert max(seen.packets, seen.images) >= 6
    seen = Damage()
    stop.set()
    with pytest.raises(VideoError, match="stopped before its first frame"):
        open_reader(source, Selection(loop=0), stop, seen)
    assert (seen.packets, seen.images) in {(0, 0), (1, 0)}


@pytest.mark.parametrize(("codec", "start_s"), [("aac", 1.0), ("aac", 6.6), ("mp2", 6.6), ("libopus", 6.6)])
def test_sound_begins_where_the_pictures_do(cli, model, tmp_path, codec, start_s):
    """Key frames are four seconds apart, and the file is entered at one: what is before the start must not come."""
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
