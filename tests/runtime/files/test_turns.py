import threading

import pytest

from salema.runtime.files.turns import alone_with


@pytest.fixture
def file(tmp_path):
    (tmp_path / "model.onnx").touch()
    return tmp_path / "model.onnx"


def test_one_at_a_time(file):
    waits, entered = threading.Event(), threading.Event()

    def enter():
        with alone_with(file, 60, waits.set):
            entered.set()

    other = threading.Thread(target=enter)
    with alone_with(file, 60, lambda: None):
        other.start()
        assert waits.wait(60)
        assert not entered.is_set()
    other.join(60)
    assert entered.is_set()
    assert list(file.parent.iterdir()) == [file]


def test_it_goes_on_after_a_while_and_where_there_is_no_file(file):
    told = []
    with alone_with(file, 60, lambda: None), alone_with(file, 0.05, lambda: told.append("waits")):
        assert told == ["waits"]
    with alone_with(file.with_name("absent"), 60, lambda: told.append("waits")):
        assert told == ["waits"]
