"""A split model as one `StepEngine`: it runs encoder, our EMA kernel and decoder one after the other on one stream."""

from __future__ import annotations

import math

import numpy as np

from salema.kernels.arrays import Array, Launcher
from salema.kernels.device.interface import Buffer, Device
from salema.kernels.ops.ema import ema_update
from salema.runtime.gpu.step_engine import StepEngine
from salema.runtime.spec import check_parts


class SplitEngine:
    """Encoder and decoder with `ema_update` between them, which updates the state in place."""

    updates_in_place = True

    def __init__(self, encoder: StepEngine, decoder: StepEngine, device: Device, launcher: Launcher) -> None:
        """Takes over both engines; `close` closes them.

        Raises:
            ModelError: they are not of one model.
        """
        check_parts(encoder.spec, decoder.spec)
        assert encoder.spec.split is not None
        self._split = encoder.spec.split
        self.spec = encoder.spec.whole
        self._encoder, self._decoder = encoder, decoder
        self._device, self._launcher = device, launcher
        least, most = zip(encoder.batch_range, decoder.batch_range, strict=True)
        self.note = encoder.note or decoder.note
        self.batch_range = (max(least), min(most))
        self._addresses: dict[str, int] = {}
        self._between: dict[str, Buffer] = {}
        self._streams = 0

    def set_batch(self, streams: int) -> None:
        """See `StepEngine.set_batch`."""
        self._encoder.set_batch(streams)
        self._decoder.set_batch(streams)
        self._streams = streams
        self._free()
        for engine, names in ((self._encoder, self._encoder.spec.output_names), (self._decoder, ("averaged",))):
            for name in names:
                nbytes = math.prod(self._state_shape) * np.dtype(engine.spec.tensor_dtype(name)).itemsize
                self._between[name] = self._device.allocate(nbytes)
                engine.bind(name, self._between[name].address)

    def bind(self, name: str, address: int) -> None:
        """See `StepEngine.bind`."""
        if name == "frame":
            self._encoder.bind(name, address)
        elif name == "saliency":
            self._decoder.bind(name, address)
        else:
            self._addresses[name] = address

    def enqueue(self, stream: int) -> None:
        """See `StepEngine.enqueue`."""
        self._encoder.enqueue(stream)
        state = self.spec.states[0].name
        ema_update(
            self._launcher,
            self._array(self._addresses[f"{state}_out"], "float32"),
            self._passed("fresh"),
            Array(self._addresses["mix"], (self._streams,), np.dtype(np.float32), self._launcher.device),
            self._passed("averaged"),
            residual=self._passed(self._split.residual) if self._split.residual else None,
            relu=self._split.relu,
            rectified=self._split.rectified,
        )
        self._decoder.enqueue(stream)

    def capturable(self, stream: int) -> bool:
        """See `StepEngine.capturable`."""
        return self._encoder.capturable(stream) and self._decoder.capturable(stream)

    def close(self) -> None:
        """See `StepEngine.close`."""
        self._free()
        self._encoder.close()
        self._decoder.close()

    @property
    def _state_shape(self) -> tuple[int, int, int, int]:
        return (self._streams, *self.spec.states[0].shape_chw)

    def _passed(self, name: str) -> Array:
        return self._array(self._between[name].address, self._encoder.spec.tensor_dtype(name))

    def _array(self, address: int, dtype: str) -> Array:
        return Array(address, self._state_shape, np.dtype(dtype), self._launcher.device)

    def _free(self) -> None:
        for buffer in self._between.values():
            buffer.free()
        self._between.clear()
