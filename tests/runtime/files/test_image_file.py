import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from limits import run_in_little_memory

from salema.runtime.errors import MapError, VideoError
from salema.runtime.files.image_file import decode_file
from salema.runtime.sources.image_reader import read_image

IMPORTS = """
import cv2
from salema.runtime.errors import MapError
from salema.runtime.files.image_file import decode_file
"""
READ = """
try:
    print(decode_file(path, cv2.IMREAD_UNCHANGED, MapError).shape)
except MapError as error:
    print(error)
"""


def write_png(path, width, height):
    """A grey PNG of zeros, about a thousand times smaller than its pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    stream = zlib.compressobj(9)
    rows = b"".join(stream.compress(bytes(width + 1)) for _ in range(height)) + stream.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def test_a_bomb_is_refused_by_its_header(tmp_path):
    bomb = write_png(tmp_path / "bomb.png", 30_000, 20_000)
    assert bomb.stat().st_size < 600_000
    told = f"{bomb}: is 30000x20000 by its header, and 134 million pixels are the most; make it smaller\n"
    assert run_in_little_memory(IMPORTS, READ, bomb) == told
    small = write_png(tmp_path / "small.png", 300, 200)
    assert run_in_little_memory(IMPORTS, READ, small) == "(200, 300)\n"
    with pytest.raises(VideoError, match="is 30000x20000 by its header"):
        read_image(bomb)


def test_files_that_never_end_or_never_begin_are_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("fifo.png", "zero.png"):
        sentence = f"{tmp_path / name}: is no ordinary file; copy what it gives into one\n"
        assert run_in_little_memory(IMPORTS, READ, tmp_path / name) == sentence


@pytest.mark.parametrize("data", [b"", b"P5 2 2 255 abcd", b"BM" + bytes(60)])
def test_files_that_are_no_image_are_refused(tmp_path, data):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(MapError, match=r"a.png: can't be read as an image; (give a whole PNG|copy or make it anew)"):
        decode_file(path, cv2.IMREAD_COLOR, MapError)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_zeros_after_the_end_are_accepted(tmp_path, suffix):
    data = cv2.imencode(suffix, np.full((8, 9), 7, np.uint8))[1].tobytes()
    (tmp_path / "a").write_bytes(data + bytes(5000))
    assert decode_file(tmp_path / "a", cv2.IMREAD_UNCHANGED, MapError).tolist() == [[7] * 9] * 8
    (tmp_path / "a").write_bytes(data[: len(data) // 2] + bytes(5000))
    with pytest.raises(MapError, match="breaks off; copy or make it anew"):
        decode_file(tmp_path / "a", cv2.IMREAD_UNCHANGED, MapError)
