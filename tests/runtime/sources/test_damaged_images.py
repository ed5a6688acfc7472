import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image
from played import play
from videos import DISC, damage, write_clip

from salema.runtime.errors import VideoError
from salema.runtime.sources.image_reader import read_image
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.readers import open_reader
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import find_sources
from salema.runtime.video.damage import Damage


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


def test_photographs_are_turned_and_frames_of_a_dataset_are_not(tmp_path):
    """A phone writes how it was held beside the picture, as EXIF data."""
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    left_half_white = np.zeros((40, 60), np.uint8)
    left_half_white[:, :30] = 255
    Image.fromarray(left_half_white).save(tmp_path / "a.jpg", exif=exif)
    (source,) = find_sources([str(tmp_path)])
    with Playback(source) as playback:
        (frame,) = playback
    assert frame.image_bgr.shape == (60, 40, 3)
    assert (frame.image_bgr[5, 20] > 200).all()
    assert (frame.image_bgr[55, 20] < 50).all()
    with Playback(replace(source, of_dataset=True)) as playback:
        (frame,) = playback
    assert frame.image_bgr.shape == (40, 60, 3)


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


@pytest.mark.parametrize("kind", ["video", "images"])
def test_a_stop_ends_a_search_through_damage(tmp_path, kind):
    """Otherwise the search would read a whole file, however large, before it ended."""
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
