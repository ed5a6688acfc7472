"""A worker in this process: what a node's own faults become."""

import errno
import socket
import tempfile

import pytest

from salema.runtime.errors import BackendError, VideoError
from salema.runtime.fleet.worker import SentModel, Worker


def outcome_of(error):
    """What a worker tells of a video whose run raises this."""

    def work(*_):
        raise error

    worker = Worker(work, None, 1)
    worker._stream.append(None)
    worker.begin(None)
    assert worker._ended.wait(10)
    return worker.news(0).outcome


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "/tmp/x: No space left on device"),
        (MemoryError(), "too little memory"),
    ],
)
def test_a_fault_of_the_node_names_it(error, said):
    found = outcome_of(error)
    assert isinstance(found, BackendError)
    assert str(found).startswith("node ")
    assert str(found).endswith(f" ({socket.gethostname()}): {said}")


def test_a_fault_of_the_video_stays_as_it_is():
    error = VideoError("v.mp4: empty")
    assert outcome_of(error) is error


def test_a_node_without_room_for_the_model_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    found = Worker(None, None, 1).open(SentModel("", {}, {"retune": False}), None)
    assert isinstance(found, BackendError)
    assert f"({socket.gethostname()}): {tmp_path}/absent/salema-scratch-" in str(found)
    assert str(found).endswith(": No such file or directory")
