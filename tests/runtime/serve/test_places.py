"""Places of many streams in one model: each has the maps of a model of its own."""

import threading
from contextlib import closing

import numpy as np
import pytest
from host_device import HostDevice, QueuedLauncher, open_host
from serving import raw_map, result, serving, settings

from salema.runtime import load
from salema.runtime.errors import BackendError, UsageError
from salema.runtime.gpu.device_session import DeviceSession
from salema.runtime.serve.limits import Limits
from salema.runtime.serve.places import open_places
from salema.runtime.stream import SaliencyStream


def on_host_device(folder):
    device = HostDevice()
    return SaliencyStream(
        DeviceSession(open_host(folder, device), device, QueuedLauncher(device), "host", state_scheme="copy")
    )


@pytest.fixture(scope="module")
def expected(model, disc):
    with load(model) as stream:
        return [stream.step(frame) for frame in disc]


@pytest.mark.parametrize("opened", [load, on_host_device], ids=["keeps states", "overwrites states"])
def test_places_take_turns_in_a_model_of_one_stream(model, disc, expected, opened):
    stream = opened(model)
    assert stream.session.keeps_states == (opened is load)
    with closing(open_places(stream, 3, 20)) as places:
        one, two, three = (places.take_place(0) for _ in range(3))
        for place, index in [(one, 0), (two, 0), (two, 1), (one, 1), (three, 0), (one, 2), (two, 2), (three, 1)]:
            np.testing.assert_allclose(place.step(disc[index]), expected[index], atol=1e-6)
        two.reset()
        one.close()
        for place, index in [(two, 0), (three, 2), (two, 1), (three, 3), (two, 2)]:
            np.testing.assert_allclose(place.step(disc[index]), expected[index], atol=1e-6)


def test_a_free_batch_gives_as_many_places_as_are_wanted(exported, disc, expected):
    with closing(open_places(load(exported(batch=None)), 3, 20)) as places:
        taken = [places.take_place(0) for _ in range(3)]
        assert places.take_place(0) is None
        found = [[] for _ in taken]

        def run(place, maps):
            for frame in disc:
                maps.append(place.step(frame))

        threads = [threading.Thread(target=run, args=pair) for pair in zip(taken, found, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for maps in found:
            np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_a_batch_that_is_too_small_is_told(exported):
    model = exported(batch=2)
    with pytest.raises(UsageError, match="9 streams .* are more than the model's batch of 2"):
        open_places(load(model), 9, 20)
    with pytest.raises(UsageError, match="--max-wait-ms -1"):
        open_places(load(model), 2, -1)
    open_places(load(model), 2, 20).close()


def test_a_server_with_a_batch(exported, disc, expected, small_clip):
    """Two clients, a source and single images, in one batch."""
    with (
        serving(exported(batch=None), small_clip, limits=Limits(max_streams=3)) as one,
        one.connect() as first,
        one.connect() as second,
    ):
        for socket in (first, second):
            socket.send(settings(form="float16", bgr_hw=(64, 96)))
        for frame, wanted in zip(disc, expected, strict=True):
            for socket in (first, second):
                socket.send(frame.tobytes())
            for socket in (first, second):
                np.testing.assert_allclose(raw_map(*result(socket)), wanted, rtol=2**-10)
        assert one.service.sources[0].state == "playing"
        assert not one.notes


def test_a_step_that_fails_takes_no_other_place_with_it(model, disc, expected):
    """Where steps overwrite states, what the last place held there is gone too."""
    stream = on_host_device(model)
    step = stream.session.step

    def fail(*arguments):
        step(*arguments)
        raise BackendError("the GPU is lost")

    with closing(open_places(stream, 2, 20)) as places:
        one, two = places.take_place(0), places.take_place(0)
        one.step(disc[0])
        two.step(disc[0])
        one.step(disc[1])
        stream.session.step = fail
        with pytest.raises(BackendError, match="the GPU is lost"):
            two.step(disc[1])
        stream.session.step = step
        for place, index in [(one, 2), (two, 1)]:
            np.testing.assert_allclose(place.step(disc[index]), expected[index], atol=1e-6)
