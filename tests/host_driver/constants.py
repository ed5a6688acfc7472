"""Sessions of constants (`constant_engine`) on the driver's GPUs, and what their steps must give."""

import numpy as np
from constant_engine import SIZE_HW, STATE, constant_session, constants

from salema.kernels.device.cuda import CudaDevice
from salema.kernels.device.launcher import CudaLauncher
from salema.kernels.twins.ema import ema_update

_FRAMES = np.zeros((1, *SIZE_HW, 3), np.uint8)
SALIENCY = constants("fp16")[1]["saliency"][0]


def open_constants(index=0, **options):
    device = CudaDevice(index)
    return constant_session(device, CudaLauncher(device), "fp16", **options)


def states_after(steps):
    """The states `[C, h, w]` after each of these steps from nothing on."""
    given, _ = constants("fp16")
    state, states = np.zeros((1, *STATE), np.float32), []
    fresh, entered = (given[name][np.newaxis] for name in ("fresh", "entered"))
    for index in range(steps):
        mix = np.full(1, 0.25 if index else 1, np.float32)
        ema_update(state, fresh.copy(), mix, np.empty_like(fresh), residual=entered)
        states.append(state[0].copy())
    return states


def step_and_check(stream, steps=4):
    """Steps from nothing on, the last ones as graphs; each map and each state must be right."""
    for state in states_after(steps):
        np.testing.assert_array_equal(stream.infer(_FRAMES)[0], SALIENCY)
        np.testing.assert_array_equal(stream.snapshot()["ema30"][0], state)
