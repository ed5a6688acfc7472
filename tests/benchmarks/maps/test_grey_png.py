import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from salema.benchmarks.maps.grey_png import decode_grey_png
from salema.benchmarks.maps.map_files import read_map

PICTURE = np.random.default_rng(0).integers(0, 256, (9, 13)).astype(np.uint8)


def png(rows, filters, *, form=(8, 0, 0, 0, 0), more=b"", level=9):
    """Writes rows as a PNG whose filters are those that are given, by the letter of the specification."""
    rows = np.asarray(rows, int)
    above, left = np.zeros_like(rows), np.zeros_like(rows)
    above[1:], left[:, 1:] = rows[:-1], rows[:, :-1]
    stored = [rows, rows - left, rows - above, rows - (left + above) // 2]
    lines = b"".join(bytes([f]) + bytes((stored[f][y] % 256).tolist()) for y, f in enumerate(filters))
    head = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], *form)
    packed = zlib.compress(lines + more, level)
    half = len(packed) // 2
    chunks = ((b"IHDR", head), (b"tEXt", b"a\0b"), (b"IDAT", packed[:half]), (b"IDAT", packed[half:]), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def by_opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


@given(st.data())
def test_rows_as_they_are_or_as_differences_are_what_opencv_reads(data):
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    rows = data.draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 7, 200, 255])))
    filters = data.draw(st.lists(st.sampled_from([0, 1, 2]), min_size=shape[0], max_size=shape[0]))
    written = png(rows, filters)
    found = decode_grey_png(written)
    assert found.dtype == np.uint8
    assert (found == rows).all()
    assert (found == by_opencv(written)).all()


def test_files_of_other_programs():
    blurred = cv2.GaussianBlur(np.kron(PICTURE, np.ones((20, 20), np.uint8)), (0, 0), 9)
    for flags in ([], [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP], [cv2.IMWRITE_PNG_COMPRESSION, 0]):
        written = cv2.imencode(".png", blurred, flags)[1].tobytes()
        found = decode_grey_png(written)
        assert found is None or (found == blurred).all()
    assert (decode_grey_png(cv2.imencode(".png", blurred)[1].tobytes()) == blurred).all()
    sparse = (blurred > 254).astype(np.uint8) * 255
    with io.BytesIO() as file:
        Image.fromarray(sparse).save(file, "PNG")
        assert (decode_grey_png(file.getvalue()) == sparse).all()


def test_other_kinds_of_images_are_left_to_opencv(tmp_path):
    mixed = png(PICTURE, [3] * 9)
    others = [
        cv2.imencode(".png", image)[1].tobytes() for image in (PICTURE.astype(np.uint16), np.dstack([PICTURE] * 3))
    ]
    for data in (mixed, *others):
        assert decode_grey_png(data) is None
        (tmp_path / "a.png").write_bytes(data)
        assert (read_map(tmp_path / "a.png") == PICTURE).all()


def test_damage_is_for_another_decoder_to_say():
    good = png(PICTURE, [1] * 9)
    assert (decode_grey_png(good) == PICTURE).all()
    for place in range(8, len(good)):
        wrong = bytearray(good)
        wrong[place] ^= 0x41
        found = decode_grey_png(bytes(wrong))
        assert found is None, place
        assert decode_grey_png(good[:place]) is None
    assert decode_grey_png(png(PICTURE, [0] * 9, more=bytes(10**7))) is None
    for form in ((16, 0, 0, 0, 0), (8, 3, 0, 0, 0), (8, 0, 0, 0, 1)):
        assert decode_grey_png(png(PICTURE, [0] * 9, form=form)) is None


@pytest.mark.parametrize("library", ["zlib_ng", "nothing"])
def test_zlib_serves_where_zlib_ng_is_missing(tmp_path, library):
    (tmp_path / "a.png").write_bytes(png(PICTURE, [1] * 9))
    code = f"""
import sys
sys.modules[{library!r}] = None
from salema.benchmarks.maps.grey_png import decode_grey_png
print(decode_grey_png(open("a.png", "rb").read()).sum())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ran.stdout == f"{PICTURE.sum()}\n", ran.stderr
