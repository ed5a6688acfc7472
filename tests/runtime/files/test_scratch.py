import errno
import os
import subprocess
import sys
import tempfile

import pytest

from salema.runtime.files.scratch import scratch_folder, sweep


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_it_goes_away_whatever_happens(tmp_path):
    with pytest.raises(OSError, match="full"), scratch_folder() as folder:
        (folder / "deep/er").mkdir(parents=True)
        assert folder.parent == tmp_path
        raise OSError("full")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(tmp_path):
    code = f"""
import os, signal, tempfile
tempfile.tempdir = {str(tmp_path)!r}
from salema.runtime.files.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "model").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with scratch_folder() as mine:
        assert subprocess.run([sys.executable, "-c", code]).returncode == -9
        assert len(list(tmp_path.iterdir())) == 2
        sweep()
        assert list(tmp_path.iterdir()) == [mine]
        with scratch_folder() as other:
            assert set(tmp_path.iterdir()) == {mine, other}


def test_a_fifo_or_a_link_of_such_a_name_is_left_alone(tmp_path):
    (tmp_path / "kept").mkdir()
    os.mkfifo(tmp_path / "salema-scratch-fifo")
    (tmp_path / "salema-scratch-link").symlink_to(tmp_path / "kept")
    before = set(tmp_path.iterdir())
    with scratch_folder():
        pass
    assert set(tmp_path.iterdir()) == before


def test_where_there_are_no_locks_it_works_and_nothing_is_swept(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with scratch_folder() as mine, scratch_folder() as other:
        assert set(tmp_path.iterdir()) == {mine, other}
    assert list(tmp_path.iterdir()) == []
