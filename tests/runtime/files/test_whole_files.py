import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from salema.runtime.errors import KeptError, OutputError, VideoError
from salema.runtime.files import locks
from salema.runtime.files import whole_files as files
from salema.runtime.files.whole_files import make_folder, write_bytes, written_aside

OPEN = Path("/proc/self/fd")


def test_a_file_appears_whole_with_ordinary_permissions(tmp_path):
    path = tmp_path / "a.png"
    with written_aside(path) as aside:
        aside.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    (tmp_path / "plain").write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("error", [KeyboardInterrupt, VideoError("v"), ValueError("x")])
def test_an_error_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(type(error) if isinstance(error, Exception) else error), written_aside(path) as aside:
        aside.write_bytes(b"half")
        raise error
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]


def test_places_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(OutputError, match="is a folder; name a file"):
        write_bytes(tmp_path, b"")
    with pytest.raises(OutputError, match="No such file or directory"):
        write_bytes(tmp_path / "absent/a.png", b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="can't make this folder"):
        make_folder(tmp_path / "file/sub")


@pytest.mark.skipif(not OPEN.is_dir(), reason="what a process holds open can't be seen without /proc")
@pytest.mark.parametrize("has_locks", [True, False])
def test_a_file_is_held_open_only_if_that_locks_it(tmp_path, monkeypatch, has_locks):
    """Windows has no `fcntl`, and can't rename an open file."""
    if not has_locks:
        monkeypatch.setattr(locks, "fcntl", None)
    with written_aside(tmp_path / "a.png") as aside:
        held = {os.path.realpath(link) for link in OPEN.iterdir()}
        assert (str(aside.resolve()) in held) == has_locks
        with files.taken_over(aside) as is_left:
            assert not is_left
    assert (tmp_path / "a.png").exists()


def test_two_containers_on_one_volume_share_no_file(tmp_path):
    """Both processes may be number 1, and one may have been killed."""
    code = """
import os
os.getpid = lambda: 1
from pathlib import Path
from salema.runtime.files.whole_files import written_aside
with written_aside(Path("a.csv")) as aside:
    aside.write_bytes(b"all that is left")
    os._exit(9)
"""
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 9
    assert [path.read_bytes() for path in tmp_path.glob(".a.1.*.partial.csv")] == [b"all that is left"] * 2


def test_a_signal_as_soon_as_the_file_is_there_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "hold", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a.csv", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_that_another_process_took_for_a_left_one_is_made_again(tmp_path, monkeypatch):
    lock, taken = files.hold, []

    def take_first(file):
        if not taken:
            taken.append(file.name)
            Path(file.name).unlink()
        return lock(file)

    monkeypatch.setattr(files, "hold", take_first)
    write_bytes(tmp_path / "a.csv", b"new")
    assert len(taken) == 1
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.csv", b"new")]


def test_a_file_system_without_syncs_is_no_failure(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    with written_aside(tmp_path / "a.csv", durable=True) as aside:
        aside.write_bytes(b"new")
    assert (tmp_path / "a.csv").read_bytes() == b"new"


def test_what_the_disk_fails_to_sync_gets_its_name_all_the_same(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    told = pytest.raises(KeptError, match=r"a.csv: is written, but may not be on the disk \(Input/output error\)")
    with told, written_aside(tmp_path / "a.csv", durable=True) as aside:
        aside.write_bytes(b"new")
    assert (tmp_path / "a.csv").read_bytes() == b"new"
