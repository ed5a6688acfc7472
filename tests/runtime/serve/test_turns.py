"""In which order streams are served. Each step waits for the test, so that no clock decides."""

import threading
from contextlib import closing

import numpy as np
import pytest
from serving import jpeg, result, serving, settings, until

from salema.runtime import load
from salema.runtime.errors import BackendError, UsageError
from salema.runtime.serve import places, protocol
from salema.runtime.serve.places import open_places, slot_of

FRAME = np.zeros((64, 96, 3), np.uint8)


class Gate:
    """Holds up each step of a session until it is let go; `steps` are the frames in each that has begun."""

    def __init__(self, session):
        self._step, self._free = session.step, threading.Semaphore(0)
        self.steps = []
        session.step = self

    def __call__(self, frames, *more):
        self.steps.append(len(frames))
        assert self._free.acquire(timeout=20)
        return self._step(frames, *more)

    def let_go(self, count=1):
        self._free.release(count)


class Line:
    """Places by name, each with a frame that is sent when the test says so; `served` is whose step is done."""

    def __init__(self, opened):
        self.places, self.gate, self.served, self.failed = opened, Gate(opened._stream.session), [], {}
        self._places, self.frame = {}, FRAME

    def send(self, *names):
        """Each sends a frame, one after the other."""
        for name in names:
            place = self._places.setdefault(name, None) or self.places.take_place(0)
            self._places[name] = place
            threading.Thread(target=self._run, args=(name, place), daemon=True).start()
            until(lambda place=place: place in self.places._waiting or place is self.places._running)

    def _run(self, name, place):
        try:
            place.step(self.frame)
            self.served.append(name)
        except Exception as error:  # noqa: BLE001 - told to the test
            self.failed[name] = error

    def serve(self, count=1):
        """Lets so many steps end; returns whose they were."""
        before = len(self.served)
        for done in range(before, before + count):
            self.gate.let_go()
            until(lambda done=done: len(self.served) > done)
        return "".join(self.served[before:])

    def leave(self, name):
        self._places[name].abort()


@pytest.fixture
def line(model):
    with closing(open_places(load(model), 3, 20)) as opened:
        one = Line(opened)
        yield one
        one.gate.let_go(100)


def test_one_that_comes_now_and_then_waits_for_the_step_that_runs_and_no_more(line):
    line.send("s")
    assert line.serve() == "s"
    line.send(*"abc")  # they flood: each sends the next frame as soon as it was served
    assert line.serve(3) == "abc"
    for _ in range(3):
        line.send(*"abc")
        line.send("s")  # a's step runs
        assert line.serve(4) == "asbc"


def test_those_who_flood_are_served_in_turn(line):
    line.send(*"abc")
    order = ""
    for _ in range(9):
        order += line.serve()
        line.send(order[-1])
    assert order == "abcabcabc"


def test_a_new_one_goes_before_those_who_flood_and_after_those_who_waited_longer(line):
    line.send("s")
    line.serve()
    line.send(*"abc")
    line.serve(3)
    line.send(*"abc")
    line.send(*"ns")
    assert line.serve(5) == "asnbc"


def test_those_who_come_anew_all_the_time_hold_up_nobody_for_more_than_a_round(line):
    """A new one after each step: those who flood still have their turns."""
    line.send(*"abc")
    line.serve(3)
    line.send(*"abc")
    order = ""
    for name in "123456789":
        line.send(name)
        order += line.serve()
    assert order == "a1b2c3456"
    assert line.serve(3) == "789"


def test_a_large_frame_is_made_smaller_before_its_turn(line, monkeypatch):
    """Else all others would wait for that too."""
    resize, sizes = places.to_network_size, []
    monkeypatch.setattr(places, "to_network_size", lambda frame, *hw: sizes.append(frame.shape) or resize(frame, *hw))
    line.frame = np.zeros((640, 960, 3), np.uint8)
    line.send(*"ab")
    assert sizes == [(640, 960, 3)] * 2  # while a's step runs
    line.serve(2)
    assert len(sizes) == 2


def test_one_who_leaves_the_line_takes_no_step(line):
    line.send(*"abc")
    line.leave("b")
    until(lambda: line.failed)
    line.leave("c")
    line.leave("a")  # its step runs already, and ends in order
    assert line.serve() == "a"
    until(lambda: len(line.failed) == 2)
    for name in "bc":
        assert isinstance(line.failed[name], BackendError)
        assert str(line.failed[name]) == "the step was aborted"
    line.send("b")
    assert line.serve() == "b"
    assert line.gate.steps == [1, 1]


def test_the_end_waits_for_the_step_that_runs_and_ends_the_line(line):
    line.send(*"ab")
    closing_ = threading.Thread(target=line.places.close)
    closing_.start()
    until(lambda: line.failed)
    assert closing_.is_alive()
    assert str(line.failed["b"]) == "the step was aborted"
    assert line.serve() == "a"
    closing_.join(20)
    with pytest.raises(UsageError, match="the model is closed"):
        line.places.take_place(0).step(FRAME)


@pytest.mark.parametrize("batch", [1, None])
def test_a_client_that_vanishes_while_its_frame_waits_costs_no_step(model, exported, batch):
    with serving(model if batch else exported(batch=None)) as one:
        gate = Gate(one.service._places._stream.session)
        with one.connect() as stays, one.connect() as vanishes:
            for socket in (stays, vanishes):
                socket.send(settings(bgr_hw=FRAME.shape[:2]))
            stays.send(FRAME.tobytes())
            until(lambda: gate.steps == [1])
            vanishes.send(FRAME.tobytes())
            until(lambda: waiting(one) == 1)
            vanishes.socket.close()
            until(lambda: one.service.metrics.streams._value.get() == 1)  # its place is free while the step runs
            gate.let_go(5)
            assert result(stays)[0]["frame"] == 1
            stays.send(FRAME.tobytes())
            assert result(stays)[0]["frame"] == 2
        assert gate.steps == [1, 1]
        assert one.ask("/readyz").status == 200
        assert one.notes == []


def waiting(served):
    """How many frames wait for their step."""
    taken = served.service._places
    return len(taken._stepper._waiting if hasattr(taken, "_stepper") else taken._waiting)


def test_frames_that_wait_share_one_step_of_a_batch(exported):
    with serving(exported(batch=None)) as one:
        gate = Gate(one.service._places._stream.session)
        with one.connect() as first, one.connect() as second, one.connect() as third:
            for socket in (first, second, third):
                socket.send(settings(bgr_hw=FRAME.shape[:2]))
            first.send(FRAME.tobytes())
            until(lambda: gate.steps == [1])
            second.send(FRAME.tobytes())
            third.send(FRAME.tobytes())
            until(lambda: waiting(one) == 2)
            gate.let_go(2)
            for socket in (first, second, third):
                assert result(socket)[0]["frame"] == 1
        assert gate.steps == [1, 2]


def test_large_frames_share_half_of_the_cores(model, monkeypatch):
    """From decoding to encoding, one at a time on two cores; small ones go between."""
    begun, decode = [], protocol.decoded
    monkeypatch.setattr(protocol, "decoded", lambda data, *more: begun.append(data) or decode(data, *more))
    monkeypatch.setattr(places, "usable_cores", lambda: 2)
    large, other = (jpeg(np.full((1200, 1920, 3), level, np.uint8)) for level in (10, 20))
    small = jpeg(FRAME)
    with serving(model) as one, one.connect() as first, one.connect() as second, one.connect() as third:
        gate = Gate(one.service._places._stream.session)
        first.send(large)
        until(lambda: gate.steps == [1])
        second.send(other)
        until(lambda: one.service._slot._cond._waiters)
        third.send(small)
        until(lambda: waiting(one) == 1)
        assert begun == [large, small]
        gate.let_go()
        until(lambda: begun == [large, small, other])  # while the small one's step runs
        assert gate.steps == [1, 1]
        gate.let_go(2)
        assert [result(socket)[0]["frame"] for socket in (first, second, third)] == [1, 1, 1]


def test_in_batches_no_frame_waits_for_another(exported):
    with closing(open_places(load(exported(batch=None)), 3, 20)) as opened, slot_of(opened) as one:
        assert one is None  # nothing is held
