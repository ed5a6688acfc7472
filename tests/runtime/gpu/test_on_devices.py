"""A whole GPU session without its networks, on a real GPU; and over host memory, to try the test itself."""

import cv2
import numpy as np
import pytest
from constant_engine import SIZE_HW, STATE, constant_session, constants
from host_device import HostDevice, QueuedLauncher

from salema.kernels.twins.ema import ema_update
from salema.runtime.postprocess import VIEWS, Look, render, to_grey
from salema.runtime.stream import SaliencyStream


def host():
    device = HostDevice()
    return device, QueuedLauncher(device)


def gpu():
    from salema.kernels.device.cuda import CudaDevice
    from salema.kernels.device.launcher import CudaLauncher

    device = CudaDevice()
    return device, CudaLauncher(device)


@pytest.fixture(params=[pytest.param(host, id="host"), pytest.param(gpu, id="gpu", marks=pytest.mark.gpu)])
def make(request):
    return request.param


def twin_state(state, mix, precision):
    """Returns the state `[C, h, w]` after one more step."""
    given, _ = constants(precision)
    arrays = {name: value[np.newaxis].copy() for name, value in given.items()}
    after = state[np.newaxis].copy()
    out = np.empty(after.shape, given["fresh"].dtype)
    weight = np.full(1, mix, np.float32)
    ema_update(after, arrays["fresh"], weight, out, residual=arrays["entered"])
    return after[0]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("graphs", [True, False])
def test_steps_of_one_and_of_several_streams(make, precision, graphs):
    _, given = constants(precision)
    for streams in (1, 3):
        device, launcher = make()
        with constant_session(device, launcher, precision, graphs=graphs) as session:
            stream = SaliencyStream(session, streams)
            frames = np.zeros((streams, *SIZE_HW, 3), np.uint8)
            for start in range(2):
                state = np.zeros(STATE, np.float32)
                for index in range(6):
                    maps = stream.infer(frames)
                    state = twin_state(state, 1 if index == 0 else 0.25, precision)
                    np.testing.assert_array_equal(maps, np.repeat(given["saliency"], streams, 0))
                    np.testing.assert_array_equal(stream.snapshot()["ema30"], np.repeat(state[None], streams, 0))
                if start == 0:
                    stream.reset()
            assert len(session._graphs) == int(graphs)


@pytest.mark.parametrize("graphs", [True, False])
def test_pictures_of_every_view_and_size(make, graphs):
    _, given = constants("fp16")
    saliency = given["saliency"][0]
    rng = np.random.default_rng(0)
    device, launcher = make()
    with constant_session(device, launcher, "fp16", graphs=graphs) as session:
        stream = SaliencyStream(session)
        for size in ((48, 64), (121, 187), (360, 640), (540, 960)):
            for view in (None, *VIEWS):
                for _ in range(3):
                    frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
                    pictures = stream.picture(frame, Look(view))
                    np.testing.assert_array_equal(pictures.grey, to_grey(saliency))
                    if view is not None:
                        np.testing.assert_array_equal(pictures.image_bgr, render(frame, pictures.grey, Look(view)))
                    seen = session._tensors["frame"]
                    with device.active():
                        seen.download()
                        device.synchronize()
                    expected = cv2.resize(frame, SIZE_HW[::-1], interpolation=cv2.INTER_AREA)
                    np.testing.assert_array_equal(seen.array[0], expected)
                    del seen, pictures  # page-locked memory must be gone before the session is closed
