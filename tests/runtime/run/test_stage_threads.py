import itertools
import threading
import time
from contextlib import closing

import pytest

from salema.runtime.run import stage_threads as module
from salema.runtime.run.stage_threads import is_something_left, side_by_side


def threads():
    return {thread for thread in threading.enumerate() if not thread.name.startswith("pytest")}


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = threads()
    yield
    deadline = time.monotonic() + 5
    while threads() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threads() == before


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_order_is_kept(count, depth):
    stages = [lambda x: x + 1, lambda x: x * 10]
    assert list(side_by_side(range(count), stages, depth)) == [(x + 1) * 10 for x in range(count)]
    assert list(side_by_side(range(count), [], depth)) == list(range(count))


def test_stages_really_run_side_by_side():
    """The first stage's second item and the second stage's first wait for each other: in turns, they never meet."""
    barrier = threading.Barrier(2)

    def first(x):
        if x > 0:
            barrier.wait(timeout=10)
        return x

    def second(x):
        if x < 4:
            barrier.wait(timeout=10)
        return x

    assert list(side_by_side(range(5), [first, second])) == list(range(5))


def test_nobody_runs_far_ahead():
    made = []

    def source():
        for x in range(100):
            made.append(x)
            yield x

    for depth, stages in ((1, []), (2, [lambda x: x]), (3, [lambda x: x, lambda x: x])):
        made.clear()
        # Each queue holds its depth, and each stage and the source hold one more.
        most = 1 + depth * (len(stages) + 1) + len(stages) + 1
        with closing(side_by_side(source(), stages, depth)) as results:
            next(results)
            deadline = time.monotonic() + 10
            while len(made) < most and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(0.05)
            assert len(made) == most


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("where", ["source", "first stage", "last stage"])
@pytest.mark.parametrize("at", [0, 1, 20])
def test_an_exception_comes_after_what_was_before_it_and_stops_all(where, at):
    def source():
        for x in itertools.count():
            if (where, x) == ("source", at):
                raise BrokenError(where)
            yield x

    def stage(name):
        def run(x):
            if (where, x) == (name, at):
                raise BrokenError(where)
            return x

        return run

    results = []
    with pytest.raises(BrokenError, match=where):
        results.extend(side_by_side(source(), [stage("first stage"), lambda x: x, stage("last stage")]))
    assert results == list(range(at))


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_who_stops_taking_stops_all(taken):
    with closing(side_by_side(itertools.count(), [lambda x: x])) as results:
        assert [next(results) for _ in range(taken)] == list(range(taken))


def test_an_exception_of_the_taker_stops_all():
    with pytest.raises(BrokenError), closing(side_by_side(itertools.count(), [lambda x: x])) as results:
        for x in results:
            if x == 3:
                raise BrokenError


def test_a_stage_that_takes_long_is_waited_for_and_not_abandoned(monkeypatch):
    """Ten seconds were the limit, and steps of eight are usual on a small machine."""
    monkeypatch.setattr(module, "_HURRIED_JOIN_S", 0.02)
    ended, begun, stop = [], threading.Event(), threading.Event()

    def step(x):
        if x == 2:
            begun.set()
            time.sleep(0.3)  # longer than what a source is given when it has to go
            ended.append(x)
        return x

    for in_source in (False, True):
        stop.clear()
        begun.clear()
        source = map(step, itertools.count()) if in_source else itertools.count()
        with closing(side_by_side(source, [] if in_source else [step], 1, stop, works_in_source=in_source)) as results:
            assert [next(results), next(results)] == [0, 1]
            assert begun.wait(10)
            stop.set()
        assert ended.pop() == 2


def test_a_step_without_end_is_aborted():
    aborted = threading.Event()
    stop = threading.Event()

    def step(x):
        if x and not aborted.wait(60):
            raise AssertionError
        return x

    with closing(side_by_side(itertools.count(), [step], stop=stop, abort=aborted.set)) as results:
        assert next(results) == 0
        stop.set()
        begun_s = time.monotonic()
        assert list(results) == []
    assert time.monotonic() - begun_s < 5


def test_a_step_that_never_ends_is_left_behind_sooner_where_somebody_wants_to_go(monkeypatch):
    monkeypatch.setattr(module, "_HURRIED_STAGE_JOIN_S", 0.2)
    stop, go_on = threading.Event(), threading.Event()

    def step(x):
        if x == 1:
            go_on.wait(60)
        return x

    with closing(side_by_side(itertools.count(), [step], stop=stop)) as results:
        assert next(results) == 0
        stop.set()
        assert list(results) == []
        assert is_something_left()
        go_on.set()
