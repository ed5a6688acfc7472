import threading
from types import SimpleNamespace

import pytest

from salema.runtime.errors import BackendError
from salema.runtime.run.videos import run_jobs


def test_a_second_model_that_cannot_be_opened_costs_no_video():
    begun, closed = [], []
    opened = iter([SimpleNamespace(close=lambda: closed.append(1))])

    def open_stream():
        if (stream := next(opened, None)) is None:
            raise BackendError("no room for another")
        return stream

    with pytest.raises(BackendError, match="no room for another"):
        list(run_jobs(range(9), open_stream, lambda item, _: begun.append(item), jobs=2))
    assert (begun, closed) == ([], [1])


def test_no_more_models_are_opened_than_there_are_videos_and_each_runs_one_at_a_time():
    opened, both = [], threading.Barrier(2, timeout=10)

    def open_stream():
        opened.append(SimpleNamespace(close=lambda: None))
        return opened[-1]

    def work(item, stream):
        both.wait()
        return item, stream

    done = [result for _, result in run_jobs(range(2), open_stream, work, jobs=5)]
    assert len(opened) == 2
    assert sorted(item for item, _ in done) == [0, 1]
    assert {id(stream) for _, stream in done} == set(map(id, opened))
