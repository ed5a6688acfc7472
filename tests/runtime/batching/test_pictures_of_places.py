"""Places on a device that draws: pictures of all of them in one recorded step, each what it is alone."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from batches import Gate, together
from host_device import HostDevice, QueuedLauncher, open_host

from salema.export.weights.seeded import moving_disc
from salema.runtime.backends.opening import open_session
from salema.runtime.batching.stream_batch import StreamBatch
from salema.runtime.gpu.device_session import DeviceSession
from salema.runtime.postprocess import Look, render, to_levels
from salema.runtime.stream import SaliencyStream

LOOKS = (Look(), Look("map", "none"), Look("side-by-side", colormap="turbo", opacity=0.3))
SIZES = ((90, 121), (48, 64), (128, 192))
COUNT = 7


@pytest.fixture
def on_device(exported):
    """Opens three places over host memory; returns the batch, its gate, the session and its device."""
    opened = []

    def make(*, split=False, **options):
        device = HostDevice()
        folder = exported(batch=None, **({"split": True} if split else {}))
        session = DeviceSession(open_host(folder, device), device, QueuedLauncher(device), "host", **options)
        batch = StreamBatch(SaliencyStream(session, 3), 5000)
        opened.append(batch)
        return batch, Gate(batch, through=1000), session, device

    yield make
    for batch in opened:
        batch.close()


@pytest.fixture
def alone(exported):
    def run(frames):
        with SaliencyStream(open_session(exported(batch=None), "onnxruntime", "cpu")) as stream:
            return [stream.step(frame) for frame in frames]

    return run


def assert_drawn(pictures, frame, saliency, look):
    np.testing.assert_allclose(pictures.saliency, saliency, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(pictures.grey, to_levels(pictures.saliency, pictures.limits))
    np.testing.assert_array_equal(pictures.image_bgr, render(frame, pictures.grey, look))


@pytest.mark.parametrize("options", [{}, {"split": True}, {"state_scheme": "copy"}, {"graphs": False}])
def test_each_place_has_its_own_size_and_look(on_device, alone, options):
    batch, gate, session, device = on_device(**options)
    videos = [moving_disc(COUNT + place, *size) for place, size in enumerate(SIZES)]

    def run(frames, look):
        with batch.take_place() as place:
            assert place.draws_pictures
            return [place.picture(frame, look, raw=True) for frame in frames]

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(run, videos, LOOKS))
    for frames, look, drawn in zip(videos, LOOKS, results, strict=True):
        for frame, saliency, pictures in zip(frames, alone(frames), drawn, strict=True):
            assert_drawn(pictures, frame, saliency, look)
    assert gate.places.count([0, 1, 2]) >= COUNT - 3
    if options.get("graphs", True):
        assert len(session._graphs) >= 1
        assert device.launches >= 1
    else:
        assert device.launches == 0


def test_all_pictures_are_one_graph_whoever_is_there(on_device, disc):
    batch, gate, session, device = on_device(state_scheme="copy")
    places = [batch.take_place() for _ in range(3)]
    for place in places:
        place.picture(disc[0], Look())
    for _ in range(2):  # all have memory now: the first is the warm-up, the second is recorded
        places[0].picture(disc[0], Look())
        places[0].reset()
    before = device.launches
    for place in places:
        batch._stepper._in_pace.clear()
        place.picture(disc[1], Look())
    assert device.launches == before + 3
    assert len(session._graphs) == 1
    assert gate.places[-3:] == [[0], [1], [2]]


def test_maps_and_pictures_in_one_batch(on_device, alone, disc):
    """Running limits are known on the host only, so a place may ask for its map while another's is drawn."""
    batch, _, _, _ = on_device()
    a, b = batch.take_place(), batch.take_place()
    with ThreadPoolExecutor(2) as pool:
        maps = pool.submit(lambda: ([a.step(frame) for frame in disc], a.close())[0])
        drawn = pool.submit(lambda: ([b.picture(frame, Look(), raw=True) for frame in disc], b.close())[0])
        expected = alone(disc)
        np.testing.assert_allclose(maps.result(), expected, rtol=0, atol=1e-6)
        for frame, saliency, pictures in zip(disc, expected, drawn.result(), strict=True):
            assert_drawn(pictures, frame, saliency, Look())


def test_an_error_of_the_pictures_reaches_no_place_that_wants_its_map(on_device, alone, disc, monkeypatch):
    batch, _, session, _ = on_device()
    a, b, c = (batch.take_place() for _ in range(3))
    b.step(disc[0])

    def fails(*_):
        raise MemoryError("no room for the picture")

    monkeypatch.setattr(session, "step_pictures", fails)
    gate = Gate(batch)
    with ThreadPoolExecutor(3) as pool:
        monkeypatch.setattr(c, "step", lambda frame: c.picture(frame, Look()))
        futures = together(batch, gate, pool, [(a, disc[0]), (b, disc[1]), (c, disc[1])])
        gate.let(1)  # the second batch is two steps
        np.testing.assert_allclose(futures[1].result(), alone(disc[:2])[1], rtol=0, atol=1e-6)
        with pytest.raises(MemoryError, match="no room for the picture"):
            futures[2].result()
    assert gate.places == [[0], [1], [2]]
