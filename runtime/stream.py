"""The stream: it alone keeps the temporal state of a video, or of several side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salema.runtime.closing import Closing
from salema.runtime.errors import ModelError, UsageError
from salema.runtime.postprocess import Look, Pictures, ToDraw
from salema.runtime.preprocess import check_frame, to_network_size
from salema.runtime.session import PictureSession, Session
from salema.runtime.spec import ModelSpec

_HALF_A_LEVEL = 0.5 / 255  # an 8-bit map can't show less


class SaliencyStream(Closing):
    """Saliency of consecutive frames; the stream carries the state from each frame to the next.

    Args:
        session: the loaded model; closing the stream frees it.
        streams: how many independent videos run side by side; must equal the model's batch, unless that is free.
        model: the folder or file that the model was loaded from, or None.

    Raises:
        UsageError: the model was exported for another batch, or its engine was built for other numbers of streams.
    """

    def __init__(self, session: Session, streams: int = 1, model: Path | None = None) -> None:
        batch = session.spec.batch
        if streams < 1 or batch not in {None, streams}:
            raise UsageError(
                f"{streams} streams asked for, and the model was exported with --batch {batch or 'dynamic'};"
                + (f" ask for {batch}, or export it with --batch dynamic" if streams > 0 else " ask for 1 or more")
            )
        session.check_streams(streams)
        self._session = session
        self._streams, self.model = streams, model
        self.reset()

    @property
    def spec(self) -> ModelSpec:
        """The model's facts."""
        return self._session.spec

    @property
    def session(self) -> Session:
        """The loaded model; closing the stream frees it."""
        return self._session

    @property
    def streams(self) -> int:
        """How many videos run side by side."""
        return self._streams

    @property
    def description(self) -> str:
        """Backend and device, for people."""
        return self._session.description

    def reset(self, stream: int | None = None) -> None:
        """Empties the memory of all streams, or of one: the next frame is a first frame again.

        Raises:
            UsageError: there is no such stream.
        """
        if stream is None:
            self._first = np.ones(self._streams, bool)
            self._states = self._session.from_host(self._zeros())
            return
        if not 0 <= stream < self._streams:
            raise UsageError(f"reset({stream}): there are streams 0 to {self._streams - 1}")
        self._first[stream] = True
        if self.spec.coefficient is None:  # an LSTM starts from zeros; for an EMA, mix = 1 is enough
            empty = self._session.from_host(self._zeros())
            rows = [(empty if row == stream else self._states, row) for row in range(self._streams)]
            self._states = self._session.gather(rows)

    def step(self, frame: NDArray[np.uint8], elapsed: float = 1) -> NDArray[np.float32]:
        """Takes the next frame, BGR `(h, w, 3)` of any size; returns its raw sigmoid map `(H, W)` at network size.

        Args:
            frame: uint8, as OpenCV reads it.
            elapsed: the time since the last frame, counted in frames. The new frame's weight is
                `1 - (1 - a) ** elapsed`, so that left-out frames don't make the memory longer; with 1 it is `a`.

        Raises:
            UsageError: the frame has another dtype or shape, or there are several streams; or `elapsed` is not 1 in a
                network that has no average, or not above 0.
            ModelError: the model returned values outside 0 to 1, which is no saliency map.
        """
        saliency: NDArray[np.float32] = self.step_batch([frame], elapsed)[0]
        return saliency

    def step_batch(self, frames: Sequence[NDArray[np.uint8]], elapsed: float = 1) -> NDArray[np.float32]:
        """Takes the next frame of every stream, each BGR of any size; returns their maps `(N, H, W)`.

        Raises:
            UsageError: a frame has another dtype or shape, or the number of frames is not that of streams; see `step`.
        """
        if len(frames) != self._streams:
            raise UsageError(f"{len(frames)} frames given for {self._streams} streams")
        resized = [to_network_size(frame, self.spec.height, self.spec.width) for frame in frames]
        return self.infer(np.stack(resized), elapsed)

    def infer(self, frames_nhwc: NDArray[np.uint8], elapsed: float = 1) -> NDArray[np.float32]:
        """Takes the next frame of every stream as `step_batch` does, but uint8 `(N, H, W, 3)` at network size already.

        Raises:
            UsageError: the array has another shape; see `step`.
        """
        expected = (self._streams, self.spec.height, self.spec.width, 3)
        if frames_nhwc.shape != expected or frames_nhwc.dtype != np.uint8:
            raise UsageError(f"{frames_nhwc.dtype} frames {frames_nhwc.shape} given, uint8 {expected} expected")
        maps, self._states = self._session.step(frames_nhwc, self._states, self._mix(elapsed))
        self._first[:] = False
        is_inside = self._check_range(maps.min(), maps.max())
        return maps if is_inside else maps.clip(0, 1)

    def _check_range(self, least: float, greatest: float) -> bool:
        """Returns whether maps lie in 0 to 1; refuses maps more than half a grey level outside.

        Rounding can put them a little outside: the caller clips those. NaN and infinity pass: the caller reports them,
        as it knows the frame.
        """
        if not (math.isfinite(least) and math.isfinite(greatest)) or (least >= 0 and greatest <= 1):
            return True
        if least < -_HALF_A_LEVEL or greatest > 1 + _HALF_A_LEVEL:
            raise ModelError(
                f"{self.spec.weights}: the model gave values from {least:.4g} to {greatest:.4g}, and a saliency map"
                " lies in 0 to 1; export the model again with salema-export, whose graphs end with the sigmoid"
            )
        return False

    @property
    def draws_pictures(self) -> bool:
        """Whether `picture` can be called: the model runs where our kernels run, and there is one stream."""
        return isinstance(self._session, PictureSession) and self._streams == 1

    def picture(self, image_bgr: NDArray[np.uint8], look: Look, elapsed: float = 1, *, raw: bool = False) -> Pictures:
        """Takes the next frame, BGR `(h, w, 3)` of any size; returns its 8-bit map and a picture, made on the device.

        Args:
            image_bgr: uint8.
            look: how to draw; its view None for no picture. `normalise="running"` is not possible here.
            elapsed: see `step`.
            raw: whether to return the raw map too.

        Raises:
            UsageError: the frame has another dtype or shape, or there are several streams, or the device can't draw
                pictures with this look; see `step`.
        """
        session = self._session
        if not isinstance(session, PictureSession) or self._streams != 1:
            raise UsageError("pictures are drawn for one stream on a GPU only; use step and salema.runtime.postprocess")
        if look.normalise == "running":
            raise UsageError("running limits are not known on the device; use step and salema.runtime.postprocess")
        check_frame(image_bgr)
        mix = self._mix(elapsed)
        drawn, self._states = session.step_pictures({0: ToDraw(image_bgr, look, raw)}, self._states, mix)
        pictures = drawn[0]
        self._first[:] = False
        if not self._check_range(*pictures.range) and pictures.saliency is not None:
            np.clip(pictures.saliency, 0, 1, out=pictures.saliency)
        return pictures

    def _mix(self, elapsed: float) -> NDArray[np.float32]:
        coefficient = self.spec.coefficient
        if elapsed != 1:
            if coefficient is None:
                raise UsageError(
                    f"elapsed={elapsed:g}: {self.spec.architecture} has no average whose weight could follow it"
                )
            if not 0 < elapsed < math.inf:
                raise UsageError(f"elapsed={elapsed:g}: give the frames' time since the last one, more than 0")
            coefficient = 1 - (1 - coefficient) ** elapsed
        return np.where(self._first, 1, coefficient or 0).astype(np.float32)

    def snapshot(self) -> dict[str, NDArray[np.float32]]:
        """Returns a copy of the memory: the states `{name: [N, C, H, W]}`, and `first` `[N]` (1 before a first frame).

        All are float32. `restore` takes it, in this process or another.
        """
        return {**self._session.to_host(self._states), "first": self._first.astype(np.float32)}

    def restore(self, snapshot: Mapping[str, NDArray[np.float32]]) -> None:
        """Takes over the memory that `snapshot` returned.

        Raises:
            UsageError: the snapshot is of another model or number of streams.
        """
        shapes = {name: array.shape for name, array in self._zeros().items()} | {"first": (self._streams,)}
        held = {name: array.shape for name, array in snapshot.items()}
        if held != shapes:
            raise UsageError(f"the snapshot is of another model: it holds {held}, {shapes} expected")
        self._first = snapshot["first"].astype(bool)
        self._states = self._session.from_host({state.name: snapshot[state.name] for state in self.spec.states})

    def abort(self) -> None:
        """Ends a step that another thread runs, if the backend can: that step raises the backend's own error."""
        self._session.abort()

    def close(self) -> None:
        """Frees the state and the model."""
        self._states = ()
        self._session.close()

    def _zeros(self) -> dict[str, NDArray[np.float32]]:
        return {state.name: np.zeros((self._streams, *state.shape_chw), np.float32) for state in self.spec.states}
