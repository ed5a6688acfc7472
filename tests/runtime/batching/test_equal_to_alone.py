"""Videos in one batch on every backend: each gets what it gets alone."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from batches import Gate
from host_device import HostDevice, QueuedLauncher, open_host

from salema.export.weights.seeded import moving_disc
from salema.runtime.backends.opening import open_session
from salema.runtime.batching.stream_batch import StreamBatch
from salema.runtime.gpu.device_session import DeviceSession
from salema.runtime.stream import SaliencyStream

PLACES = 3
LENGTHS = (5, 1, 7, 2, 4)  # more videos than places
FRAMES = moving_disc(sum(LENGTHS), 64, 96)
VIDEOS = np.split(FRAMES, np.cumsum(LENGTHS)[:-1])
VARIANTS = {
    "SalGAN": {"arch": "salgan"},
    "SalEMA30": {},
    "SalEMA30+54": {"ema_locs": (30, 54)},
    "SalCLSTM30": {"arch": "salclstm30"},
}


def on_host(folder, **options):
    device = HostDevice()
    return DeviceSession(open_host(folder, device), device, QueuedLauncher(device), "host", **options)


# How to open a folder, and how it is exported for that.
SESSIONS = {
    "onnxruntime": (lambda folder: open_session(folder, "onnxruntime", "cpu"), {}),
    "openvino": (lambda folder: open_session(folder, "openvino", "cpu"), {}),
    "ncnn": (lambda folder: open_session(folder, "ncnn", "cpu"), {}),
    "onnxruntime, batch fixed": (lambda folder: open_session(folder, "onnxruntime", "cpu"), {"batch": PLACES}),
    "onnxruntime, split": (lambda folder: open_session(folder, "onnxruntime", "cpu"), {"split": True}),
    "device": (on_host, {}),
    "device, copy": (lambda folder: on_host(folder, state_scheme="copy"), {}),
    "device, in place": (on_host, {"split": True}),
}

COMBINATIONS = [
    (name, variant)
    for name, (_, options) in SESSIONS.items()
    for variant in VARIANTS
    if variant == "SalEMA30" or not options  # the others would be exported for these tests alone
]


@pytest.fixture(params=SESSIONS)
def session(request, exported):
    """Opens a variant with a backend."""
    opened, options = SESSIONS[request.param]

    def open_variant(variant="SalEMA30"):
        return opened(exported(**{"batch": None, **VARIANTS[variant], **options}))

    return open_variant


def run_all(batch, videos, pause_s=0.0):
    """Runs videos on a batch's places, each from a thread of its own; returns their maps."""

    def run(frames):
        with batch.take_place() as place:
            maps = []
            for frame in frames:
                time.sleep(pause_s)
                maps.append(place.step(frame))
            return np.stack(maps)

    with ThreadPoolExecutor(len(videos)) as pool:
        return list(pool.map(run, videos))


@pytest.mark.parametrize(("session", "variant"), COMBINATIONS, indirect=["session"])
def test_videos_of_any_length_equal_runs_alone(session, variant):
    opened = session(variant)
    with StreamBatch(SaliencyStream(opened, PLACES)) as batch:
        maps = run_all(batch, VIDEOS)
        assert batch.free_places == PLACES
    for frames, found in zip(VIDEOS, maps, strict=True):
        expected = []
        with session(variant) as one:
            stream = SaliencyStream(one, PLACES if one.spec.batch else 1)
            expected = [stream.step_batch([frame] * stream.streams)[0] for frame in frames]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("max_wait_ms", [0, 1, 50])
def test_many_threads(batch, alone, max_wait_ms):
    videos = [np.roll(FRAMES[:6], number, 1) for number in range(16)]
    maps = run_all(batch(4, max_wait_ms), videos, pause_s=0.001)
    for frames, found in zip(videos, maps, strict=True):
        np.testing.assert_allclose(found, alone(frames), rtol=0, atol=1e-6)


def test_a_place_without_a_frame_keeps_its_memory(session, disc):
    opened = session()
    with StreamBatch(SaliencyStream(opened, PLACES), 0) as batch:
        a, b = batch.take_place(), batch.take_place()
        a.step(disc[0])
        before = a.snapshot()
        for frame in disc:
            b.step(frame)
        for name, value in a.snapshot().items():
            np.testing.assert_array_equal(value, before[name])


def test_nan_in_one_place_touches_no_other(session, disc):
    opened, maps = session(), []
    with StreamBatch(SaliencyStream(opened, PLACES), 5000) as batch, ThreadPoolExecutor(2) as pool:
        gate = Gate(batch, through=100)

        def step_all(place, frames):
            found = [place.step(frame) for frame in frames]
            return found, place.snapshot(), place.close()

        a, b = batch.take_place(), batch.take_place()
        poison = b.snapshot()
        poison["ema30"][:] = np.nan
        b.restore(poison | {"first": np.zeros(1, np.float32)})
        futures = [pool.submit(step_all, place, FRAMES[:8]) for place in (a, b)]
        (maps, after, _), (_, poisoned, _) = (future.result() for future in futures)
        assert gate.places.count([0, 1]) > 3
    assert np.isnan(poisoned["ema30"]).all()
    with SaliencyStream(session(), PLACES) as stream:
        expected = [stream.step_batch([frame] * PLACES)[0] for frame in FRAMES[:8]]
        np.testing.assert_allclose(after["ema30"], stream.snapshot()["ema30"][:1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-6)
