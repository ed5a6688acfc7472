import struct

import av
import cv2
import numpy as np
import pytest
from videos import DISC, write_clip, write_silence

from salema.export.weights.seeded import moving_disc
from salema.runtime.errors import VideoError
from salema.runtime.video.video_reader import VideoReader

FRONT = {"mp4": {"movflags": "+faststart"}, "mkv": {}}  # what puts the index before the pictures


@pytest.mark.parametrize(("name", "audio"), [("a.mp4", None), ("a.mp4", "aac"), ("a.mkv", None), ("a.mkv", "aac")])
def test_a_cut_off_file_is_reported(tmp_path, name, audio):
    source = write_clip(tmp_path / name, moving_disc(100, 64, 96), audio=audio, muxer=FRONT[name[-3:]])
    with VideoReader(source) as reader:
        assert len(list(reader)) == 100
    data = source.read_bytes()
    source.write_bytes(data[: int(0.6 * len(data))])
    seen = []
    with VideoReader(source) as reader, pytest.raises(VideoError, match=r"ends after .* of the 4\.0 s .* cut off"):
        seen.extend(reader)
    assert 10 < len(seen) < 95


def test_cover_art_is_not_a_video(tmp_path):
    cover = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
    source = tmp_path / "song.mp3"
    write_silence(source, "libmp3lame", 1152)
    picture = b"\0image/png\0\3\0" + cover
    frame = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    size = bytes((len(frame) >> shift) & 127 for shift in (21, 14, 7, 0))
    source.write_bytes(b"ID3\3\0\0" + size + frame + source.read_bytes())
    with av.open(str(source)) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(VideoError, match="cover art does not count"):
        VideoReader(source)


def garbage(path):
    path.write_bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes())


def text(path):
    path.write_text("not a video\n" * 100)


def without_index(path):
    write_clip(path, DISC)
    path.write_bytes(path.read_bytes()[:500])


def no_frames(path):
    """A header with a video track that has no frame to decode."""
    write_clip(path, DISC)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.write_bytes(b""), "can't be read as a video"),
        (garbage, "can't be read as a video"),
        (text, "can't be read as a video|holds no"),
        (without_index, "can't be read as a video"),
        (write_silence, "holds no video stream"),
        (no_frames, "holds no frame that can be decoded"),
        (lambda path: path.mkdir(), "no such video file"),
        (lambda _: None, "no such video file"),
    ],
    ids=["empty", "garbage", "text", "no index", "only sound", "no frames", "folder", "missing"],
)
def test_files_that_are_no_video(tmp_path, make, sentence):
    path = tmp_path / "bad.mp4"
    make(path)
    with pytest.raises(VideoError, match=sentence):
        VideoReader(path)
