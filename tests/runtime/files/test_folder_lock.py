import threading

from salema.runtime.files.folder_lock import alone_in


def test_one_at_a_time(tmp_path):
    waits, entered = threading.Event(), threading.Event()

    def enter():
        with alone_in(tmp_path, 60, waits.set):
            entered.set()

    other = threading.Thread(target=enter)
    with alone_in(tmp_path, 60, lambda: None):
        other.start()
        assert waits.wait(60)
        assert not entered.is_set()
    other.join(60)
    assert entered.is_set()
    assert list(tmp_path.iterdir()) == []


def test_it_goes_on_after_a_while_and_where_there_is_no_folder(tmp_path):
    told = []
    with alone_in(tmp_path, 60, lambda: None), alone_in(tmp_path, 0.05, lambda: told.append("waits")):
        assert told == ["waits"]
    with alone_in(tmp_path / "absent", 60, lambda: told.append("waits")):
        assert told == ["waits"]
