import pytest
from videos import write_coded

from salema.export.weights.seeded import moving_disc
from salema.runtime.files.roomy_file import RoomyFile


def write(file, frames):
    # With B-frames and its macroblock tree x264 (165) isn't deterministic on a CPU with AVX-512.
    write_coded(file, frames, "libx264", "yuv420p", muxer="mp4", options={"x264-params": "mbtree=0"})


def test_a_roomy_file_ends_where_its_data_does(tmp_path):
    plain, roomy = tmp_path / "plain.mp4", tmp_path / "roomy.mp4"
    write(plain, moving_disc(30, 64, 96))
    file = RoomyFile(roomy)
    file.reserve(1)
    write(file, moving_disc(30, 64, 96))
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
def test_positions_are_those_of_the_written_bytes(tmp_path, whence):
    file = RoomyFile(tmp_path / "a")
    file.write(b"0123456789")
    file.seek(4)
    assert file.seek(-2 if whence else 2, whence) == {0: 2, 1: 2, 2: 8}[whence]
    file.write(b"x")
    file.close()
    assert (tmp_path / "a").read_bytes() == {2: b"01x3456789", 8: b"01234567x9"}[8 if whence == 2 else 2]
