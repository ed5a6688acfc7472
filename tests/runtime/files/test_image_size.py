import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salema.runtime.files.image_size import image_size_wh

PICTURE = np.random.default_rng(0).integers(0, 256, (21, 37, 3), dtype=np.uint8)
SUFFIXES = (".png", ".jpg", ".bmp", ".tiff", ".webp")


def encoded(suffix, *options, picture=PICTURE):
    return cv2.imencode(suffix, picture, options)[1].tobytes()


@pytest.mark.parametrize(
    "data",
    [
        *map(encoded, SUFFIXES),
        encoded(".png", picture=PICTURE[..., 0]),
        encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encoded(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        encoded(".webp", cv2.IMWRITE_WEBP_QUALITY, 101),  # without loss
        encoded(".webp", picture=np.dstack([PICTURE, PICTURE[..., :1]])),  # with transparency
    ],
)
def test_the_size_is_the_one_that_opencv_reads(data):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image_size_wh(data) == (37, 21) == image.shape[1::-1]


def test_a_jpeg_with_its_size_behind_long_segments_and_filling():
    data = encoded(".jpg")
    more = b"\xff\xe1" + struct.pack(">H", 60_000) + b"\xff\xc0" * 29_999  # a preview, say, with markers of its own
    assert image_size_wh(data[:2] + more + b"\xff\xff" + data[2:]) == (37, 21)


@pytest.mark.parametrize("segment", [b"\xff\xe0\0\2", b"\xff\xd0", b"\xff\0"])
def test_a_jpeg_of_endless_segments_is_not_read_to_its_end(segment):
    """It would take a second a megabyte, in which no other thread goes on."""
    data = encoded(".jpg")
    assert image_size_wh(data[:2] + segment * 4000 + data[2:]) == (37, 21)
    assert image_size_wh(data[:2] + segment * 4097 + data[2:]) is None


def test_tiff_of_every_kind():
    for order, name in (("<", b"II"), (">", b"MM")):
        field = struct.Struct(order + "HHI4s")
        wide = field.pack(256, 4, 1, struct.pack(order + "I", 70_000))
        high = field.pack(257, 3, 1, struct.pack(order + "Hxx", 300))
        data = name + struct.pack(order + "HIH", 42, 8, 3) + field.pack(254, 2, 1, b"text") + wide + high
        assert image_size_wh(data) == (70_000, 300)
        big = struct.Struct(order + "HHQ8s")
        wide, high = (big.pack(tag, 16, 1, struct.pack(order + "Q", value)) for tag, value in ((256, 5), (257, 7)))
        data = name + struct.pack(order + "HHHQQ", 43, 8, 0, 16, 2) + wide + high
        assert image_size_wh(data) == (5, 7)


def test_other_files_have_no_size():
    for data in (b"", b"no image", b"\xff\xd8\xff", b"RIFF1234AVI LIST", b"II*\0\xff\xff\xff\xff", b"BM"):
        assert image_size_wh(data) is None
    assert image_size_wh(b"GIF89a" + struct.pack("<HH", 3, 4)) == (3, 4)
    assert image_size_wh(b"BM" + struct.pack("<12xIii", 40, 3, -4)) == (3, 4)  # from the top down
    assert image_size_wh(b"BM" + struct.pack("<12xIHH", 12, 3, 4)) == (3, 4)


@given(st.sampled_from(SUFFIXES), st.integers(0, 400), st.binary(max_size=6), st.integers(0, 400))
def test_damage_gives_a_size_or_none(suffix, at, instead, keep):
    data = bytearray(encoded(suffix))
    data[at : at + len(instead)] = instead
    for damaged in (bytes(data), bytes(data[:keep])):
        found = image_size_wh(damaged)
        assert found is None or min(found) >= 0
