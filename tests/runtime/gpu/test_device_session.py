"""A device session over host memory: the order of the states' memory, its graphs and its resets."""

import gc

import numpy as np
import pytest
from host_device import HostDevice, QueuedLauncher, open_host

from salema.export.weights.seeded import moving_disc
from salema.runtime.backends.opening import open_session
from salema.runtime.errors import UsageError
from salema.runtime.gpu.device_session import DeviceSession
from salema.runtime.postprocess import Look, ToDraw
from salema.runtime.stream import SaliencyStream

MIX = np.full(1, 0.1, np.float32)
RESET_AT = 7
FRAMES = 16
KINDS = {
    "SalGAN": {"arch": "salgan"},
    "SalEMA30": {},
    "SalEMA30+54": {"ema_locs": (30, 54)},
    "SalCLSTM56 fp16": {"arch": "salclstm56", "precision": "fp16"},
}


@pytest.fixture
def host(model):
    """Opens a session over host memory; returns the session, its device and its engine."""

    def make(folder=model, *, integrated=False, engine_options=None, **options):
        device = HostDevice(integrated=integrated)
        engine = open_host(folder, device, **(engine_options or {}))
        return DeviceSession(engine, device, QueuedLauncher(device), "host", **options), device, engine

    return make


def walk(session, frames):
    """Returns maps and states of a video with a reset in the middle."""
    stream, steps = SaliencyStream(session), []
    for index, frame in enumerate(frames):
        if index == RESET_AT:
            stream.reset()
        steps.append((stream.step(frame), stream.snapshot()))
    return steps


def assert_same(steps, expected):
    for (saliency, states), (expected_map, expected_states) in zip(steps, expected, strict=True):
        np.testing.assert_array_equal(saliency, expected_map)
        for name, value in expected_states.items():
            np.testing.assert_array_equal(states[name], value)


def test_an_engines_note_is_in_the_description(model):
    device = HostDevice()
    engine = open_host(model, device)
    engine.note = "tuned for another"
    with DeviceSession(engine, device, QueuedLauncher(device), "host") as session:
        assert session.runs_on == "host, CUDA graphs, ping-pong states, tuned for another"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state_scheme", ["ping-pong", "copy"])
@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
def test_graphs_and_plain_runs_equal_onnx_runtime(host, exported, kind, state_scheme, integrated):
    folder = exported(**KINDS[kind])
    frames = moving_disc(FRAMES, 64, 96)
    with open_session(folder, "onnxruntime", "cpu") as session:
        expected = walk(session, frames)
    for graphs in (True, False):
        session, device, engine = host(folder, integrated=integrated, graphs=graphs, state_scheme=state_scheme)
        with session:
            assert_same(walk(session, frames), expected)
            if graphs:
                assert len(session._graphs) >= 1
                assert device.launches == FRAMES - engine.plain_runs
                assert engine.plain_runs <= 4  # each order once
            else:
                assert (len(session._graphs), device.launches) == (0, 0)


@pytest.mark.parametrize(("state_scheme", "orders"), [("ping-pong", 2), ("copy", 1)])
def test_each_order_has_one_graph_and_its_first_run_is_a_step(host, disc, state_scheme, orders):
    session, device, engine = host(state_scheme=state_scheme)
    with session, SaliencyStream(session) as stream:
        for index in range(12):
            stream.step(disc[index % len(disc)])
            assert engine.plain_runs == min(index + 1, orders)
            assert len(session._graphs) == max(0, min(index + 1 - orders, orders))
        assert device.launches == 12 - orders


def test_memory_does_not_grow(host, disc):
    session, device, _ = host()
    with session, SaliencyStream(session) as stream:
        for frame in disc:
            stream.step(frame)
        before = len(device.pieces)
        for _ in range(10):
            stream.step(disc[0])
            stream.reset()
            stream.snapshot()
        assert len(device.pieces) == before
    assert not device.pieces
    assert device.closed


def test_a_step_does_not_change_its_input_states_also_while_recording(host, disc):
    session, _, _ = host()
    mix = np.full(1, 0.1, np.float32)
    with session:
        states = session.from_host({"ema30": np.ones((1, 32, 4, 6), np.float32)})
        for frame in disc:
            before = session.to_host(states)["ema30"]
            first_map, after = session.step(frame[None], states, mix)
            again_map, again = session.step(frame[None], states, mix)
            np.testing.assert_array_equal(session.to_host(states)["ema30"], before)
            np.testing.assert_array_equal(again_map, first_map)
            np.testing.assert_array_equal(session.to_host(again)["ema30"], session.to_host(after)["ema30"])
            states = after
        assert len(session._graphs) > 1


def test_many_handles_at_once_keep_their_values_and_graphs_stay_few(host, disc):
    session, _, _ = host()
    mix = np.full(1, 0.5, np.float32)
    with session:
        states = [session.from_host({"ema30": np.full((1, 32, 4, 6), value, np.float32)}) for value in range(12)]
        for _ in range(3):
            for index, handle in enumerate(states):
                session.step(disc[:1], handle, mix)
                assert (session.to_host(handle)["ema30"] == index).all()
        assert len(session._graphs) <= 8


def test_the_copy_scheme_refuses_states_of_earlier_steps(host, disc):
    session, _, _ = host(state_scheme="copy")
    mix = np.full(1, 0.1, np.float32)
    with session:
        start = session.from_host({"ema30": np.ones((1, 32, 4, 6), np.float32)})
        _, first = session.step(disc[:1], start, mix)
        _, second = session.step(disc[1:2], first, mix)
        with pytest.raises(UsageError, match="this model keeps the states of the last step only"):
            session.step(disc[2:3], first, mix)
        assert (session.to_host(start)["ema30"] == 1).all()
        session.step(disc[2:3], second, mix)


def test_states_of_another_session_are_refused(host, disc):
    session, _, _ = host()
    other, _, _ = host()
    mix = np.ones(1, np.float32)
    with session, other:
        foreign = other.from_host({"ema30": np.zeros((1, 32, 4, 6), np.float32)})
        for states in (foreign, (), (None,)):
            with pytest.raises(UsageError, match="another session's; take them over with to_host and from_host"):
                session.step(disc[:1], states, mix)


def test_the_number_of_frames_must_be_that_of_states(host, exported, disc):
    session, _, _ = host(exported(batch=None))
    with session:
        states = session.from_host({"ema30": np.zeros((2, 32, 4, 6), np.float32)})
        for frames in (disc[:1], disc[:3], disc[:2, :32]):
            with pytest.raises(UsageError, match=r"frames \(\d, \d+, 96, 3\) given, \(2, 64, 96, 3\) expected"):
                session.step(frames, states, np.ones(len(frames), np.float32))
        session.step(disc[:2], states, np.ones(2, np.float32))


def test_a_refused_call_keeps_the_graphs(host, exported, disc):
    session, _, _ = host(exported(batch=None))
    look, mix = Look(view=None), np.ones(1, np.float32)
    with session:
        two = SaliencyStream(session, 2)
        for _ in range(6):
            two.step_batch([disc[0]] * 2)
        assert len(session._graphs) == 2
        states = session.from_host(two.snapshot())
        for frames in (disc[:1], disc[:3], disc[:2, :32]):
            with pytest.raises(UsageError, match="expected"):
                session.step(frames, states, np.ones(len(frames), np.float32))
        with pytest.raises(UsageError, match="pictures of 1 streams asked for, and these states are of 2"):
            session.step_pictures({0: ToDraw(disc[0], look)}, states, mix)
        assert len(session._graphs) == 2


@pytest.mark.parametrize("options", [KINDS["SalGAN"], KINDS["SalEMA30"]], ids=["without states", "with states"])
def test_streams_beyond_the_profile_are_refused_with_the_option_that_helps(host, exported, options):
    """Already when the stream is made, and not in its first step."""
    session, _, _ = host(exported(batch=None, **options), engine_options={"batch_range": (2, 3)})
    for streams, option in ((1, "--batch-profile 1 1 3"), (4, "--batch-profile 2 4 4")):
        with pytest.raises(UsageError, match=f"{streams} streams: the engine was built for 2 to 3.*{option}"):
            SaliencyStream(session, streams)
    session.close()


def test_another_number_of_streams_drops_graphs_and_keeps_states(host, exported, disc):
    folder = exported(batch=None)
    session, device, _ = host(folder)
    with session, open_session(folder, "onnxruntime", "cpu") as plain:
        one, three = SaliencyStream(session), SaliencyStream(session, 3)
        same_one, same_three = SaliencyStream(plain), SaliencyStream(plain, 3)
        for _ in range(3):
            for frame in disc:
                np.testing.assert_array_equal(one.step(frame), same_one.step(frame))
            for frame in disc:
                np.testing.assert_array_equal(three.step_batch([frame] * 3), same_three.step_batch([frame] * 3))
        assert device.launches > 0


def test_an_engine_that_cannot_be_recorded_runs_without_graphs_and_says_so(host, disc):
    session, device, engine = host(engine_options={"capturable": False})
    with session, SaliencyStream(session) as stream:
        assert session.description == "host, no CUDA graphs, it can't be recorded, ping-pong states"
        for frame in disc:
            stream.step(frame)
        assert (device.launches, engine.plain_runs) == (0, len(disc))


def test_descriptions(host):
    for options, text in (({}, "CUDA graphs, ping-pong"), ({"graphs": False}, "no CUDA graphs, ping-pong")):
        session, _, _ = host(**options)
        assert session.description == f"host, {text} states"
    with pytest.raises(UsageError, match="state scheme swap: not one of ping-pong, copy"):
        host(state_scheme="swap")


def test_a_failed_step_leaves_the_states_usable(host, disc, monkeypatch):
    def fail(*_):
        raise RuntimeError("lost")

    session, device, engine = host()
    mix = np.full(1, 0.1, np.float32)
    with session:
        states = session.from_host({"ema30": np.ones((1, 32, 4, 6), np.float32)})
        expected, _ = session.step(disc[:1], states, mix)
        for _ in range(4):  # plain, while recording, and as a graph
            with monkeypatch.context() as broken:
                broken.setattr(engine, "enqueue", fail)
                broken.setattr(device, "launch", fail)
                with pytest.raises(RuntimeError, match="lost"):
                    session.step(disc[:1], states, mix)
            device.queue.clear()
            found, _ = session.step(disc[:1], states, mix)
            np.testing.assert_array_equal(found, expected)
        gc.collect()
        assert len(session._graphs) == 1
        assert len(device.pieces) == 5  # frame, mix, map, the states that are read, and those that are written
        assert (session.to_host(states)["ema30"] == 1).all()


def test_a_session_that_is_dropped_open_frees_its_memory_while_the_device_is_active(host, disc):
    session, device, _ = host()
    for frame in disc:
        session.step(frame[None], session.from_host({"ema30": np.ones((1, 32, 4, 6), np.float32)}), MIX)
    assert len(session._graphs)
    del session
    gc.collect()
    assert not device.pieces
    assert device.closed
