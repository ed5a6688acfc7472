"""A split model whose networks give constants: all else of a GPU session is real, on whatever device it runs."""

import numpy as np

from salema.kernels.arrays import place_array
from salema.runtime.gpu.device_session import DeviceSession
from salema.runtime.gpu.split_engine import SplitEngine
from salema.runtime.spec import ModelSpec, SplitSpec, StateSpec

STATE = (8, 4, 6)
SIZE_HW = (64, 96)


class ConstantEngine:
    """One part: it copies a constant into its output."""

    updates_in_place = False
    note = ""
    batch_range = (1, 4)

    def __init__(self, part, outputs, device, *, precision):
        self.spec = ModelSpec(
            architecture="SalEMA30R",
            height=SIZE_HW[0],
            width=SIZE_HW[1],
            batch=None,
            precision=precision,
            states=(StateSpec("ema30", STATE),),
            coefficient=0.25,
            coefficient_source="test",
            weights="none",
            weights_sha256="",
            trained=False,
            rewrites=(),
            salema_version="0",
            part=part,
            split=SplitSpec("entered", relu=True),
        )
        self._outputs, self._device = outputs, device
        self._placed, self._addresses, self._streams = {}, {}, 0

    def set_batch(self, streams):
        self.close()
        self._streams = streams
        for name, value in self._outputs.items():
            _, self._placed[name] = place_array(self._device, np.repeat(value[np.newaxis], streams, 0), None)

    def bind(self, name, address):
        self._addresses[name] = address

    def enqueue(self, stream):
        assert stream == self._device.stream
        for name, buffer in self._placed.items():
            self._device.copy(self._addresses[name], buffer.address, buffer.nbytes)

    def capturable(self, stream):
        return True

    def close(self):
        for buffer in self._placed.values():
            buffer.free()
        self._placed.clear()


def constants(precision):
    """What the networks give: `fresh`, `entered` and the map."""
    rng = np.random.default_rng(3)
    dtype = {"fp32": np.float32, "fp16": np.float16}[precision]
    fresh, entered = (rng.standard_normal(STATE).astype(dtype) for _ in range(2))
    return {"fresh": fresh, "entered": entered}, {"saliency": rng.random((1, *SIZE_HW), np.float32)}


def constant_session(device, launcher, precision, **options):
    encoder, decoder = (
        ConstantEngine(part, outputs, device, precision=precision)
        for part, outputs in zip(("encoder", "decoder"), constants(precision), strict=True)
    )
    return DeviceSession(SplitEngine(encoder, decoder, device, launcher), device, launcher, "constants", **options)
