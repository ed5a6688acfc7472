"""The places of a batch: who waits for whom, whose error is whose, and how they end."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from batches import Gate, together, waits

from salema.runtime.backends.opening import open_session
from salema.runtime.batching.stream_batch import StreamBatch
from salema.runtime.errors import BackendError, UsageError
from salema.runtime.stream import SaliencyStream


def test_what_is_there_goes_together(batch, disc):
    three = batch()
    gate = Gate(three)
    a, b, c = (three.take_place() for _ in range(3))
    with ThreadPoolExecutor(3) as pool:
        for future in together(three, gate, pool, [(b, disc[0]), (c, disc[1]), (a, disc[2])]):
            future.result()
    assert gate.places == [[1], [0, 2]]


def test_an_error_reaches_the_places_of_its_batch_and_changes_no_memory(batch, alone, disc, monkeypatch):
    three = batch()
    inner = three._stream.session
    real = inner.step

    def failing(frames, states, mix):
        if any((frame == 0).all() for frame in frames):
            raise RuntimeError("the device is gone")
        return real(frames, states, mix)

    a, b, c = (three.take_place() for _ in range(3))
    maps = {place: [place.step(disc[0])] for place in (a, b, c)}
    monkeypatch.setattr(inner, "step", failing)
    gate = Gate(three)
    black = np.zeros_like(disc[0])
    with ThreadPoolExecutor(3) as pool:
        of_a, of_b, of_c = together(three, gate, pool, [(a, disc[1]), (b, disc[1]), (c, black)])
        maps[a].append(of_a.result())
        for future in (of_b, of_c):
            with pytest.raises(RuntimeError, match="the device is gone"):
                future.result()
    assert gate.places == [[0], [1, 2]]
    gate.let(2)
    maps[b].append(b.step(disc[1]))
    maps[c].append(c.step(disc[1]))
    for found in maps.values():
        np.testing.assert_allclose(found, alone(disc[:2]), rtol=0, atol=1e-6)


def test_the_others_wait_for_a_stalled_place_once(batch, disc):
    two = batch(2, max_wait_ms=1000)
    a, b = two.take_place(), two.take_place()
    with ThreadPoolExecutor(2) as pool:
        for frame in disc:
            list(pool.map(lambda place, frame=frame: place.step(frame), (a, b)))
    assert two._stepper._in_pace == {0, 1}
    gate = Gate(two, through=4)
    start_s = time.monotonic()
    for frame in disc:
        b.step(frame)
    waited_s = time.monotonic() - start_s
    assert gate.places == [[1]] * 4
    assert 0.9 < waited_s < 1.9


def test_places_stay_together_though_a_step_is_longer_than_the_wait(batch, disc, monkeypatch):
    """A frame that came while a step ran goes with those that the step served, not before them."""
    two = batch(2, max_wait_ms=200)
    real = two._stream.session.step
    monkeypatch.setattr(two._stream.session, "step", lambda *arguments: (time.sleep(0.21), real(*arguments))[1])
    gate = Gate(two, through=20)
    places = [two.take_place(), two.take_place()]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda place: ([place.step(disc[0]) for _ in range(6)], place.close()), places))
    assert gate.places.count([0, 1]) >= 4


def test_nobody_waits_for_a_slow_place(batch, disc):
    two = batch(2, max_wait_ms=5000)
    a, b = two.take_place(), two.take_place()
    a.step(disc[0])
    b.step(disc[0])
    for place in two._stepper._served_s:
        two._stepper._served_s[place] -= 6  # each next frame is later than one would wait for it
    a.step(disc[1])
    start_s = time.monotonic()
    b.step(disc[1])
    b.step(disc[2])
    assert time.monotonic() - start_s < 4


def test_a_thread_that_died_holds_nobody(batch, disc):
    two = batch(2, max_wait_ms=500)
    kept = []

    def dies():
        kept.append(two.take_place())
        for frame in disc:
            kept[0].step(frame)

    thread = threading.Thread(target=dies)
    thread.start()
    thread.join()
    with two.take_place(timeout_s=0) as place:
        start_s = time.monotonic()
        for frame in disc:
            place.step(frame)
        assert time.monotonic() - start_s < 1.4
    assert two.free_places == 1


def test_a_free_place_is_empty_and_the_next_one_gets_it(batch, alone, disc):
    one = batch(1)
    first = one.take_place()
    for frame in disc:
        first.step(frame)
    assert one.take_place(timeout_s=0.01) is None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(one.take_place)
        first.close()
        second = waiting.result()
    np.testing.assert_allclose([second.step(frame) for frame in disc], alone(disc), rtol=0, atol=1e-6)
    with pytest.raises(UsageError, match="the model is closed"):
        first.step(disc[0])
    first.close()
    assert one.free_places == 0
    stop = threading.Event()
    stop.set()
    assert one.take_place(stop=stop) is None


@pytest.mark.parametrize("arch", ["salema", "salclstm30"])
def test_each_place_has_its_own_memory_clock_and_reset(batch, alone, disc, arch):
    two = batch(2, max_wait_ms=0, arch=arch)
    a, b = two.take_place(), two.take_place()
    elapsed = 3 if arch == "salema" else 1
    maps = []
    for frame in disc:
        a.step(frame)
        maps.append(b.step(frame, elapsed))
    expected = alone(disc, elapsed, arch=arch)
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-6)
    held = a.snapshot()
    b.reset()
    np.testing.assert_allclose([b.step(frame, elapsed) for frame in disc], expected, rtol=0, atol=1e-6)
    a.step(disc[0])
    changed = a.snapshot()
    a.restore(held)
    for name, value in a.snapshot().items():
        np.testing.assert_array_equal(value, held[name])
    a.step(disc[0])
    for name, value in a.snapshot().items():
        np.testing.assert_allclose(value, changed[name], atol=1e-5)


def test_a_place_that_is_aborted_leaves_the_others_alone(batch, alone, disc):
    three = batch(3, max_wait_ms=10_000)
    gate, ended = Gate(three), []
    three._stepper._abort = lambda: ended.append(1)
    a, b, c = (three.take_place() for _ in range(3))
    a.abort()  # nothing runs
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(a.step, disc[0])
        gate.wait_for_a_batch()
        waiting = [pool.submit(place.step, disc[0]) for place in (b, c)]
        waits(three, 2)
        b.abort()
        with pytest.raises(BackendError, match="the step was aborted"):
            waiting[0].result()
        assert not ended
        a.abort()  # the only one in its batch
        assert ended == [1]
        gate.let(2)
        running.result()
        np.testing.assert_allclose(waiting[1].result(), alone(disc[:1])[0], rtol=0, atol=1e-6)
    assert gate.places == [[0], [2]]
    gate.let(1)
    b.step(disc[0])  # it can go on


def test_a_step_is_ended_only_if_nobody_else_waits_for_it(batch, disc):
    three = batch()
    gate, ended = Gate(three), []
    three._stepper._abort = lambda: ended.append(1)
    a, b, c = (three.take_place() for _ in range(3))
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(a.step, disc[0])]
        gate.wait_for_a_batch()
        futures += [pool.submit(place.step, disc[0]) for place in (b, c)]
        waits(three, 2)
        gate.let(1)
        gate.wait_for_a_batch()
        assert gate.places == [[0], [1, 2]]
        b.abort()
        a.abort()
        assert not ended
        c.abort()
        assert ended == [1]
        gate.let(1)
        assert all(future.result().shape == (64, 96) for future in futures)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_closing_in_any_order(batch, disc, order):
    two = batch(2)
    gate = Gate(two)
    a, b = two.take_place(), two.take_place()
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(a.step, disc[0])
        gate.wait_for_a_batch()
        waiting = pool.submit(b.step, disc[0])
        waits(two, 1)
        ending = [pool.submit((a.close, b.close, two.close)[which]) for which in order]
        with pytest.raises((BackendError, UsageError), match="aborted|the model is closed"):
            if order[0] == 2:  # closing the batch waits for the step
                gate.let(1)
            waiting.result(30)
        if order[0] != 2:
            ending[order.index(0)].result(30)  # before the step has begun, which it would end
        gate.let(2)
        for future in (running, *ending):
            future.result(30)
    with pytest.raises(UsageError, match="the model is closed"):
        two.take_place()
    with pytest.raises(UsageError, match="the model is closed"):
        a.step(disc[0])
    two.close()


@pytest.mark.parametrize("max_wait_ms", [-1, float("nan"), 1e6])
def test_waits_that_cannot_be(exported, max_wait_ms):
    stream = SaliencyStream(open_session(exported(batch=None), "onnxruntime", "cpu"), 2)
    with stream, pytest.raises(UsageError, match=r"--max-wait-ms .*: give milliseconds, 0 to 10000"):
        StreamBatch(stream, max_wait_ms)


def test_wrong_frames_are_refused_before_they_wait(batch, disc):
    two = batch(2)
    a = two.take_place()
    with pytest.raises(UsageError, match="uint8 BGR"):
        a.step(disc[0].astype(np.float32))
    with pytest.raises(UsageError, match="give the frames' time since the last one"):
        a.step(disc[0], -1)
    assert not two._stepper._waiting


def test_a_place_tells_what_it_is(batch, exported):
    two = batch(2)
    place = two.take_place()
    single = open_session(exported(batch=None), "onnxruntime", "cpu")
    assert (place.streams, place.spec.batch, place.spec.weights) == (1, 1, single.spec.weights)
    assert place.session.runs_on == f"{single.runs_on}, in batches with other streams"
    assert (place.session.computes_in, place.session.backend) == (single.computes_in, "onnxruntime")
    assert not place.draws_pictures
