import ctypes
import http.server
import threading
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from videos import DISC, assert_close, copy, probe, write_clip, write_coded

from salema.export.weights.seeded import moving_disc
from salema.runtime.errors import OutputError
from salema.runtime.video.video_reader import VideoReader
from salema.runtime.video.video_writer import VideoWriter

M_PERTURB = -6  # glibc's: fills the memory that it gives


def test_a_copy_has_the_same_pictures_rate_times_and_length(tmp_path):
    source = write_clip(tmp_path / "a.mp4", DISC, rate=Fraction(30000, 1001))
    copy(source, tmp_path / "b.mp4")
    before, after = probe(source), probe(tmp_path / "b.mp4")
    assert_close(after["images"], before["images"])
    for fact in ("rate", "times", "duration_s", "size_hw"):
        assert after[fact] == before[fact]
    assert (after["codec"], after["pix_fmt"]) == ("h264", "yuv420p")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.mp4", "b.mp4"]


def test_browsers_can_start_before_the_whole_file_has_come(tmp_path):
    source = write_clip(tmp_path / "a.mp4", DISC)
    copy(source, tmp_path / "b.mp4")
    data = (tmp_path / "b.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_variable_frame_rate_keeps_its_times(tmp_path):
    pts = [0, 1, 2, 10, 11, 30, 31, 33]
    source = write_clip(tmp_path / "a.mkv", DISC, pts=pts)
    copy(source, tmp_path / "b.mp4")
    after = probe(tmp_path / "b.mp4")
    np.testing.assert_allclose(after["times"], np.array(pts) / 25, atol=1e-3)
    assert after["duration_s"] == pytest.approx(34 / 25, abs=1e-3)


def test_the_last_frame_is_as_long_as_in_the_source(tmp_path):
    """If it had the average length, the file would be 1.11 s long and not 1.08 s."""
    pts = [0, 1, 2, 5, 6, 10, 11, 26]
    copy(write_clip(tmp_path / "a.mp4", DISC, pts=pts), tmp_path / "b.mp4")
    assert probe(tmp_path / "b.mp4")["duration_s"] == 27 / 25


def test_times_start_at_zero_where_the_source_starts_later(tmp_path):
    source = write_clip(tmp_path / "a.ts", DISC, pts=range(100, 108))
    assert probe(source)["times"][0] > 3
    copy(source, tmp_path / "b.mp4")
    after = probe(tmp_path / "b.mp4")
    assert after["times"][0] < 0.1
    np.testing.assert_allclose(np.diff(after["times"]), 1 / 25, atol=1e-3)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
def test_a_whole_file_that_starts_late_is_not_called_cut_off(tmp_path, name):
    source = write_clip(tmp_path / name, DISC, pts=range(250, 258))
    with VideoReader(source) as reader:
        assert len(list(reader)) == 8


@pytest.mark.parametrize("name", ["a.avi", "a.webm", "a.mkv", "a.mov"])
def test_containers_that_people_have(tmp_path, name):
    codec = "libvpx" if name.endswith("webm") else "libx264"

    def set_up(stream):
        stream.codec_context.bit_rate = 4_000_000
        stream.codec_context.max_b_frames = 0  # AVI has no time stamps for them

    write_coded(tmp_path / name, DISC, codec, "yuv420p", setup=set_up)
    copy(tmp_path / name, tmp_path / "b.mp4")
    after = probe(tmp_path / "b.mp4")
    assert len(after["images"]) == 8
    assert after["rate"] == 25
    assert all(b > a for a, b in pairwise(after["times"]))


@pytest.mark.parametrize("name", ["12:30.mp4", "file:a.mp4", "ünï cødé 50%d.mp4", "-o.mp4", f"{240 * 'x'}.mp4"])
def test_names_that_mean_something_else_to_ffmpeg(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "plain.mp4", DISC, audio="aac").rename(name)
    copy(Path(name), Path(f"out{name}"))
    assert len(probe(tmp_path / f"out{name}")["images"]) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"out{name}"])


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuvj420p", "gray"])
def test_frames_are_those_that_opencv_reads(tmp_path, pix_fmt):
    """The published code reads its frames with OpenCV."""
    source = write_clip(tmp_path / "a.mkv", DISC, setup=lambda stream: setattr(stream, "pix_fmt", pix_fmt))
    capture = cv2.VideoCapture(str(source))
    with VideoReader(source) as reader:
        for frame in reader:
            found, image = capture.read()
            assert found
            assert np.abs(frame.image_bgr.astype(int) - image).max() <= 1
    assert not capture.read()[0]
    capture.release()


@pytest.mark.parametrize("colorspace", [Colorspace.ITU601, Colorspace.ITU709])
def test_colours_survive(tmp_path, colorspace):
    colour = (40, 180, 220)

    def tag(stream):
        stream.codec_context.colorspace = int(colorspace)

    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        tag(stream)
        picture = av.VideoFrame.from_ndarray(np.full((64, 96, 3), colour, np.uint8), format="bgr24")
        container.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace=colorspace)))
        container.mux(stream.encode(None))
    copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    before, after = (probe(tmp_path / name)["images"][0].mean((0, 1)) for name in ("a.mp4", "b.mp4"))
    assert np.abs(before - colour).max() < 6
    assert np.abs(after - before).max() < 5


@pytest.mark.parametrize("size_hw", [(63, 95), (64, 95), (63, 96), (17, 33)])
def test_odd_sizes_gain_a_row_or_column(tmp_path, size_hw):
    images = moving_disc(3, *size_hw)
    frames = copy(write_coded(tmp_path / "a.mkv", images), tmp_path / "b.mp4")
    np.testing.assert_array_equal(np.stack([frame.image_bgr for frame in frames]), images)
    height, width = size_hw
    assert probe(tmp_path / "b.mp4")["size_hw"] == (height + height % 2, width + width % 2)


@pytest.mark.parametrize("sound", [None, "mp2", "aac"])
def test_time_that_jumps_back_goes_on(tmp_path, sound):
    once = write_clip(tmp_path / "a.ts", np.repeat(DISC, 8, 0), audio=sound)
    (tmp_path / "twice.ts").write_bytes(once.read_bytes() * 2)
    copy(tmp_path / "twice.ts", tmp_path / "b.mp4")
    after = probe(tmp_path / "b.mp4")
    assert len(after["images"]) == len(probe(tmp_path / "twice.ts")["images"])
    assert len(after["images"]) > 120
    assert np.diff(after["times"]).min() > 0.03
    assert after["duration_s"] == pytest.approx(128 / 25, abs=0.2)


def test_a_video_has_the_same_bytes_whatever_the_memory_held(tmp_path):
    """With B-frames and its macroblock tree x264 reads, on a CPU with AVX-512, memory that it hasn't written."""
    source = write_clip(tmp_path / "a.mp4", moving_disc(30, 64, 96))
    fill_memory = getattr(ctypes.CDLL(None), "mallopt", lambda _option, _value: None)  # glibc only
    for value in (0, 1, 85, 170):
        fill_memory(M_PERTURB, value)
        copy(source, tmp_path / f"{value}.mp4")
    fill_memory(M_PERTURB, 0)
    assert len({(tmp_path / f"{value}.mp4").read_bytes() for value in (0, 1, 85, 170)}) == 1


def test_a_name_with_a_pattern_opens_that_file(tmp_path):
    for name, value in (("img%03d.png", 200), ("img001.png", 10), ("img002.png", 20)):
        cv2.imwrite(str(tmp_path / name), np.full((32, 32, 3), value, np.uint8))
    with VideoReader(tmp_path / "img%03d.png") as reader:
        assert [frame.image_bgr[0, 0, 0] for frame in reader] == [200]


def test_a_link_is_written_through(tmp_path):
    source = write_clip(tmp_path / "a.mp4", DISC)
    (tmp_path / "link.mp4").symlink_to("target.mp4")
    copy(source, tmp_path / "link.mp4")
    assert (tmp_path / "link.mp4").is_symlink()
    assert len(probe(tmp_path / "target.mp4")["images"]) == 8


def test_a_folder_that_is_not_there(tmp_path):
    source = write_clip(tmp_path / "a.mp4", DISC)
    with (
        VideoReader(source) as reader,
        pytest.raises(OutputError, match=r"b\.mp4: can't be written \(No such file or directory\)"),
        VideoWriter(tmp_path / "absent/b.mp4", reader, 64, 96),
    ):
        pass


def test_an_error_leaves_no_video(tmp_path):
    source = write_clip(tmp_path / "a.mp4", DISC)
    with (
        VideoReader(source) as reader,
        pytest.raises(ZeroDivisionError),
        VideoWriter(tmp_path / "b.mp4", reader, 64, 96) as writer,
    ):
        for frame in reader:
            writer.write(frame.image_bgr, frame)
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_tags_that_are_not_utf_8_are_accepted(tmp_path):
    path = write_clip(
        tmp_path / "tagged.mkv", DISC, muxer=None, setup=lambda stream: stream.metadata.update(title="X" * 8)
    )
    data = path.read_bytes()
    assert data.count(b"X" * 8) == 1
    path.write_bytes(data.replace(b"X" * 8, b"caf\xe9 \xff\xfe!"))
    with VideoReader(path) as reader:
        assert len(list(reader)) == len(DISC)


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        self.server.asked.append(self.path)


def test_of_a_playlists_variants_the_largest_is_read_alone(tmp_path):
    frames = np.repeat(DISC, 9, 0)
    rate, muxer = {"g": "12"}, {"hls_time": "0.48", "hls_list_size": "0"}
    for name, size in (("low", 48), ("high", 64)):
        write_clip(tmp_path / f"{name}.m3u8", frames[:, :size], audio="aac", options=rate, muxer=muxer)
    lines = (f"#EXT-X-STREAM-INF:BANDWIDTH={size}000\n{name}.m3u8" for name, size in (("low", 48), ("high", 64)))
    (tmp_path / "all.m3u8").write_text("\n".join(["#EXTM3U", *lines]))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=tmp_path)) as web:
        web.asked = []
        threading.Thread(target=web.serve_forever, args=(0.01,)).start()
        try:
            with VideoReader(f"http://127.0.0.1:{web.server_port}/all.m3u8") as reader:
                sizes = [frame.image_bgr.shape[:2] for frame in reader]
                assert reader.sound.packets.next() is not None
        finally:
            web.shutdown()
    assert sizes == [(64, 96)] * 72
    assert {"/low0.ts", "/high0.ts", "/high5.ts"} <= {*web.asked}
    assert "/low5.ts" not in web.asked
