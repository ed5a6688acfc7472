import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from videos import DISC, assert_close, copy, probe, write_clip


def rotated_copy(source, target, matrix):
    """Sets the display matrix in an MP4's track header: 9 numbers, 16.16 but for the last column's 2.30."""
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", *matrix)
    target.write_bytes(data)
    return target


ONE, UNIT = 1 << 16, 1 << 30


# (a b u, c d v, x y w): a decoded point (x, y) is shown at (a x + c y, b x + d y), y downwards.
MATRICES = {
    "clockwise": ([0, ONE, 0, -ONE, 0, 0, 0, 0, UNIT], lambda image: np.rot90(image, -1)),
    "half turn": ([-ONE, 0, 0, 0, -ONE, 0, 0, 0, UNIT], lambda image: image[::-1, ::-1]),
    "counter-clockwise": ([0, -ONE, 0, ONE, 0, 0, 0, 0, UNIT], np.rot90),
    "mirrored": ([-ONE, 0, 0, 0, ONE, 0, 0, 0, UNIT], np.fliplr),
    "upside down": ([ONE, 0, 0, 0, -ONE, 0, 0, 0, UNIT], np.flipud),
    "transposed": ([0, ONE, 0, ONE, 0, 0, 0, 0, UNIT], lambda image: image.transpose(1, 0, 2)),
    "nothing": ([0, 0, 0, 0, 0, 0, 0, 0, UNIT], np.asarray),
}


@pytest.mark.parametrize("turn", MATRICES)
def test_rotation_is_respected(tmp_path, turn):
    matrix, shown = MATRICES[turn]
    source = write_clip(tmp_path / "a.mp4", DISC)
    rotated = rotated_copy(source, tmp_path / "r.mp4", matrix)
    expected = [shown(image) for image in probe(source)["images"]]
    frames = copy(rotated, tmp_path / "b.mp4")
    assert_close([frame.image_bgr for frame in frames], expected, mean=0.1)
    after = probe(tmp_path / "b.mp4")
    assert_close(after["images"], expected)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0


@pytest.mark.parametrize(("turn", "expected"), [(None, Fraction(4, 3)), ("clockwise", Fraction(3, 4))])
def test_pixels_that_are_not_square_stay_so(tmp_path, turn, expected):
    def set_aspect(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    source = write_clip(tmp_path / "a.mp4", DISC, setup=set_aspect)
    if turn:
        source = rotated_copy(source, tmp_path / "r.mp4", MATRICES[turn][0])
    copy(source, tmp_path / "b.mp4")
    assert probe(tmp_path / "b.mp4")["aspect"] == expected
