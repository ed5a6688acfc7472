import io
import struct

import av
import numpy as np
import pytest

from salema.export.seeded import moving_disc
from salema.runtime.mp4 import _boxes, _shift_offsets, move_index_to_front
from salema.runtime.roomy_file import RoomyFile


def box(kind, content):
    return struct.pack(">I4s", 8 + len(content), kind) + content


def table(kind, offsets):
    letter = {b"stco": "I", b"co64": "Q"}[kind]
    return box(kind, struct.pack(f">II{len(offsets)}{letter}", 0, len(offsets), *offsets))


def index(*tables):
    tracks = [box(b"trak", box(b"tkhd", b"x") + box(b"mdia", box(b"minf", box(b"stbl", t)))) for t in tables]
    return bytearray(box(b"moov", box(b"mvhd", b"abc") + b"".join(tracks)))


def test_every_track_s_offsets_are_moved_in_both_widths():
    moved = index(table(b"stco", [40, 50]), table(b"co64", [2**33, 7]))
    assert _shift_offsets(moved, 1000)
    assert moved == index(table(b"stco", [1040, 1050]), table(b"co64", [2**33 + 1000, 1007]))


def test_offsets_that_would_not_fit_are_left():
    same = index(table(b"stco", [2**32 - 10]))
    assert not _shift_offsets(same, 10)
    assert same == index(table(b"stco", [2**32 - 10]))


def test_boxes_that_are_not_there_to_their_end_are_none():
    data = box(b"ftyp", b"1234") + struct.pack(">I4sQ", 1, b"mdat", 24) + 8 * b"m" + box(b"moov", b"abc")[:-1]
    found = list(_boxes(io.BytesIO(data), 0, len(data)))
    assert [(b.kind, b.start, b.content, b.end) for b in found] == [(b"ftyp", 0, 8, 12), (b"mdat", 12, 28, 36)]
    for size in (0, 3, 7):  # to the end of the file, and nonsense
        data = struct.pack(">I4s", size, b"mdat") + 20 * b"m"
        assert list(_boxes(io.BytesIO(data), 0, len(data))) == []


def write(path, frames, sink=None):
    with av.open(sink or str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))


def images(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)])


def test_moving_the_index_changes_nothing_else(tmp_path):
    path = tmp_path / "a.mp4"
    write(path, moving_disc(60, 64, 96))
    before, size = images(path), path.stat().st_size
    move_index_to_front(path)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert len(data) <= size
    np.testing.assert_array_equal(images(path), before)
    move_index_to_front(path)
    assert path.read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_what_is_no_mp4_is_left_alone(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"something else entirely")
    move_index_to_front(path)
    assert path.read_bytes() == b"something else entirely"


def test_a_roomy_file_ends_where_its_data_does(tmp_path):
    plain, roomy = tmp_path / "plain.mp4", tmp_path / "roomy.mp4"
    write(plain, moving_disc(30, 64, 96))
    file = RoomyFile(roomy)
    file.reserve(1)
    write(None, moving_disc(30, 64, 96), sink=file)
    assert roomy.stat().st_size > plain.stat().st_size + (1 << 17)
    file.close()
    file.close()
    assert roomy.read_bytes() == plain.read_bytes()


def test_a_roomy_file_says_when_there_is_no_more_room_and_still_takes_the_index(tmp_path, monkeypatch):
    def refuse(_descriptor, start, length):
        if start + length > 1 << 20:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", refuse)
    file = RoomyFile(tmp_path / "a")
    written = 0
    with pytest.raises(OSError, match="No space left on device"):
        for _ in range(1000):
            file.reserve(10_000)
            written += file.write(bytes(10_000))
    assert (1 << 19) - 40_000 < written < 1 << 20
    assert file.write(b"index") == 5
    file.seek(0, 2)
    assert file.tell() == written + 5
    file.close()
    assert (tmp_path / "a").stat().st_size == written + 5


@pytest.mark.parametrize("whence", [0, 1, 2])
def test_places_are_those_of_what_was_written(tmp_path, whence):
    file = RoomyFile(tmp_path / "a")
    file.write(b"0123456789")
    file.seek(4)
    assert file.seek(-2 if whence else 2, whence) == {0: 2, 1: 2, 2: 8}[whence]
    file.write(b"x")
    file.close()
    assert (tmp_path / "a").read_bytes() == {2: b"01x3456789", 8: b"01234567x9"}[8 if whence == 2 else 2]
