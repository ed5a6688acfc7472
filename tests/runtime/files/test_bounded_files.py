import os

import pytest

from salema.runtime.errors import MapError, VideoError
from salema.runtime.files.bounded_files import check_file, read_file, shown_size


def test_the_whole_file_is_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to(path)
    assert read_file(path, 10, MapError) == read_file(tmp_path / "link", 10, MapError) == b"0123456789"


@pytest.mark.parametrize("kind", [MapError, VideoError])
def test_a_refused_file_is_not_read_and_the_error_is_of_the_callers_kind(tmp_path, kind):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "gone").symlink_to("nowhere")
    with (tmp_path / "big").open("wb") as file:
        file.truncate(3 << 30)
    for name, sentence in (
        ("fifo", "is no ordinary file; copy what it gives into one"),
        ("zero", "is no ordinary file; copy what it gives into one"),
        (".", "is no ordinary file"),
        ("gone", r"can't be read \(No such file or directory\)"),
        ("big", "has 3.2 GB, and 1.5 kB are the most that is read"),
    ):
        with pytest.raises(kind, match=sentence):
            read_file(tmp_path / name, 1500, kind)
        with pytest.raises(kind, match=sentence):
            check_file(tmp_path / name, 1500, kind)


def test_sizes_for_people():
    shown = [shown_size(size) for size in (0, 999, 1000, 7_840_000, 1 << 30)]
    assert shown == ["0 bytes", "999 bytes", "1.0 kB", "7.8 MB", "1.1 GB"]
