"""Colours, from the source's tags to the output's; HDR and interlaced pictures."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from videos import DISC, copy, probe, write_clip

from salema.runtime.cli.run import main
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import find_sources

BGR = [(40, 180, 220), (200, 60, 30), (128, 128, 128), (30, 30, 200), (235, 235, 235), (16, 16, 16)]
MATRIX = {"601": (Colorspace.ITU601, 6), "709": (Colorspace.ITU709, 1)}  # swscale's and H.273's
LIMITED, FULL = (ColorRange.MPEG, 1), (ColorRange.JPEG, 2)


def write_patches(path, size_hw, matrix, tag, colour_range, pix_fmt):
    """Encodes a row of patches with a matrix and a range; the tags may be missing."""
    height, width = size_hw
    image = np.repeat(np.repeat(np.array([BGR], np.uint8), height, 0), width // len(BGR), 1)
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24").reformat(
        format=pix_fmt, dst_colorspace=MATRIX[matrix][0], dst_color_range=colour_range[0]
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = height, image.shape[1], pix_fmt
        stream.codec_context.color_range = colour_range[1]
        if tag:
            stream.codec_context.colorspace = MATRIX[matrix][1]
        for pts in range(3):
            picture.pts, picture.time_base = pts, Fraction(1, 25)
            picture.colorspace = MATRIX[matrix][1] if tag else 2
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        decoded = next(container.decode(video=0))
        assert decoded.colorspace == (MATRIX[matrix][1] if tag else 2)
        assert (decoded.color_range == FULL[1]) == (colour_range == FULL)
    return path


def patches(image):
    width = image.shape[1] // len(BGR)
    return np.array([image[8:-8, i * width + 16 : (i + 1) * width - 16].mean((0, 1)) for i in range(len(BGR))])


@pytest.mark.parametrize(
    ("size_hw", "matrix", "tag", "colour_range", "pix_fmt"),
    [
        ((64, 384), "601", True, LIMITED, "yuv420p"),
        ((64, 384), "709", True, LIMITED, "yuv420p"),
        ((64, 384), "601", False, LIMITED, "yuv420p"),
        ((720, 384), "709", False, LIMITED, "yuv420p"),
        ((64, 1284), "709", False, LIMITED, "yuv420p"),
        ((720, 384), "601", True, LIMITED, "yuv420p"),
        ((64, 384), "601", True, FULL, "yuvj420p"),
        ((720, 384), "709", False, FULL, "yuvj420p"),
        ((64, 384), "709", True, LIMITED, "yuv444p"),
    ],
)
def test_colours_are_the_same_in_the_output(tmp_path, size_hw, matrix, tag, colour_range, pix_fmt):
    source = write_patches(tmp_path / "a.mp4", size_hw, matrix, tag, colour_range, pix_fmt)
    frames = copy(source, tmp_path / "b.mp4")
    # FFmpeg's quick conversion, which OpenCV uses too, is up to 5 levels too dark; a wrong matrix is 10 or more off.
    assert np.abs(patches(frames[0].image_bgr) - BGR).max() <= 5
    with av.open(str(tmp_path / "b.mp4")) as container:
        decoded = next(container.decode(video=0))
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range, context.color_trc, context.color_primaries) == (1, 1, 1, 1)
        exact = {"interpolation": 4 | 0x40000, "dst_colorspace": Colorspace.DEFAULT}  # bicubic, accurately rounded
        shown = decoded.to_ndarray(format="bgr24", src_colorspace=Colorspace.ITU709, **exact)
    assert np.abs(patches(shown) - patches(frames[0].image_bgr)).max() <= 2


@pytest.mark.parametrize(("code", "name"), [(16, "PQ"), (18, "HLG"), (1, None)])
def test_hdr_is_reported(cli, model, tmp_path, code, name):
    def tag(stream):
        stream.codec_context.color_trc, stream.codec_context.colorspace = code, 9 if name else 1

    clip = write_clip(tmp_path / "a.mp4", DISC, setup=tag)
    ran = cli(main, clip, "--model", model, "-o", tmp_path / "b.mp4")
    assert ran.code == 0, ran.err
    expected = f"note: the video is HDR ({name}), and its colours look pale here; convert it to SDR before"
    assert (expected in ran.err) == (name is not None)
    assert ("HDR" in ran.err) == (name is not None)


def write_interlaced(path):
    """A bar that moves eight columns in each field: odd lines show it later than even lines."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": "tff=1", "crf": "1", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 64, 352, "yuv420p"
        for index in range(16):
            image = np.full((64, 352, 3), 40, np.uint8)
            image[0::2, 16 * index : 16 * index + 60] = 220
            image[1::2, 16 * index + 8 : 16 * index + 68] = 220
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def combs(image):
    """Returns how much lines differ from the mean of their neighbours."""
    grey = image.astype(int).mean(axis=2)
    return np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2).mean()


def test_interlaced_pictures_are_reported_and_made_whole(cli, model, tmp_path):
    clip = write_interlaced(tmp_path / "a.mkv")
    ran = cli(main, clip, "--model", model, "-o", tmp_path / "b.mp4", "--opacity", 0)
    assert (
        "note: 16 pictures are interlaced, so that moving edges look like combs; --deinterlace makes them whole"
        in ran.err
    )
    combed = probe(tmp_path / "b.mp4")
    ran = cli(main, clip, "--model", model, "-o", tmp_path / "c.mp4", "--opacity", 0, "--deinterlace")
    assert ran.code == 0, ran.err
    assert "interlace" not in ran.err
    whole = probe(tmp_path / "c.mp4")
    for fact in ("times", "duration_s", "size_hw"):
        assert whole[fact] == combed[fact]
    assert combs(combed["images"][8]) > 5
    assert combs(whole["images"][8]) < 0.25 * combs(combed["images"][8])


def test_pictures_that_are_not_interlaced_stay_as_they_are(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", DISC)
    (source,) = find_sources([str(clip)])
    runs = []
    for deinterlace in (False, True):
        with Playback(source, Selection(deinterlace=deinterlace)) as playback:
            runs.append(list(playback))
    for plain, through in zip(*runs, strict=True):
        np.testing.assert_array_equal(plain.image_bgr, through.image_bgr)
        assert (plain.pts, plain.duration) == (through.pts, through.duration)
