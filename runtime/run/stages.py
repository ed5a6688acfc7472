"""The stages between a reader and the sinks: preprocess, step, postprocess."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from salema.runtime.errors import ModelError, UsageError
from salema.runtime.output.sink import Drawn, Sink
from salema.runtime.postprocess import PUBLISHED, Look, Normaliser, Pictures, render, to_levels
from salema.runtime.preprocess import to_network_size
from salema.runtime.sources.frames import Frame
from salema.runtime.sources.playback import Playback
from salema.runtime.spec import check_fps
from salema.runtime.stream import SaliencyStream
from salema.runtime.video.cuts import CutDetector


@dataclass(frozen=True)
class RunOptions:
    """How frames become maps and pictures.

    With `time_aware` a frame's weight depends on the time since the last one: at `reference_fps` (None for the model's
    own) it is the model's coefficient.

    Raises:
        UsageError: the rate is out of range, or given without `time_aware`.
    """

    look: Look = PUBLISHED
    reset_on_cut: bool = False
    time_aware: bool = False
    reference_fps: float | None = None

    def __post_init__(self) -> None:
        if self.reference_fps is None:
            return
        check_fps("--reference-fps", self.reference_fps)
        if not self.time_aware:
            raise UsageError("--reference-fps goes with --time-aware; add that, or leave it out")


class Clock:
    """Sums the wall time of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    def timed(self, stage: str, items: Iterable[Frame]) -> Iterator[Frame]:
        """Adds the time that each item takes to come."""
        iterator = iter(items)
        while True:
            with self.time(stage):
                item = next(iterator, None)
            if item is None:
                return
            yield item


class _Prepared(NamedTuple):
    frame: Frame
    small: NDArray[np.uint8] | None
    is_cut: bool | None


class _Stepped(NamedTuple):
    prepared: _Prepared
    saliency: NDArray[np.float32]
    elapsed_s: float


class Drawing:
    """The stages for one playback. Each keeps a state, so each must run in one thread, in order."""

    def __init__(
        self, stream: SaliencyStream, playback: Playback, sinks: Sequence[Sink], options: RunOptions, clock: Clock
    ) -> None:
        wants_picture = any(sink.wants_picture for sink in sinks)
        self._look = options.look if wants_picture else replace(options.look, view=None)
        self._raw = any(sink.wants_raw for sink in sinks)
        self._stream, self._options, self._clock = stream, options, clock
        self._time_base = playback.time_base
        self._reference_fps = options.reference_fps or stream.spec.reference_fps
        wants_cuts = options.reset_on_cut or any(sink.wants_cuts for sink in sinks)
        self._cuts = CutDetector() if wants_cuts else None
        self._normaliser = Normaliser(self._look.normalise)
        self._last_pts: int | None = None

    @property
    def stages(self) -> list[Callable[[Any], Any]]:
        """The functions that turn a `Frame` into a `Drawn`, one after the other."""
        if self._stream.draws_pictures and self._look.normalise != "running":
            return [self._detect, self._on_device]
        return [self._preprocess, self._step, self._postprocess]

    def all_stages(self, frame: Frame) -> Drawn:
        """Runs all stages at once: with nothing queued between them, a live result is as new as possible."""
        item: Any = frame
        for stage in self.stages:
            item = stage(item)
        drawn: Drawn = item
        return drawn

    def _detect(self, frame: Frame) -> _Prepared:
        if self._cuts is None:
            return _Prepared(frame, None, None)
        with self._clock.time("preprocess"):
            if frame.starts_anew:
                self._cuts.reset()
            is_cut = self._cuts.is_cut(frame.image_bgr)
        if is_cut and self._options.reset_on_cut:
            frame = replace(frame, starts_anew=True)
        return _Prepared(frame, None, is_cut)

    def _preprocess(self, frame: Frame) -> _Prepared:
        prepared = self._detect(frame)
        with self._clock.time("preprocess"):
            spec = self._stream.spec
            return prepared._replace(small=to_network_size(frame.image_bgr, spec.height, spec.width))

    def _advance(self, frame: Frame) -> tuple[float, float]:
        """Resets the state if the frame needs it; returns the time since the last frame, in frames and in seconds.

        Frames are those of the reference rate.
        """
        elapsed_s = 0.0 if self._last_pts is None else float((frame.pts - self._last_pts) * self._time_base)
        self._last_pts = frame.pts
        if frame.starts_anew:
            self._stream.reset()
        return (elapsed_s * self._reference_fps or 1.0) if self._options.time_aware else 1.0, elapsed_s

    def _step(self, prepared: _Prepared) -> _Stepped:
        assert prepared.small is not None
        with self._clock.time("step"):
            elapsed, elapsed_s = self._advance(prepared.frame)
            saliency: NDArray[np.float32] = self._stream.infer(prepared.small[np.newaxis], elapsed)[0]
        self._check_finite(is_finite=bool(np.isfinite(saliency).all()))
        return _Stepped(prepared, saliency, elapsed_s)

    def _postprocess(self, stepped: _Stepped) -> Drawn:
        (frame, _, is_cut), saliency, elapsed_s = stepped
        with self._clock.time("postprocess"):
            limits = self._normaliser.limits(saliency, elapsed_s, starts_anew=frame.starts_anew)
            grey = np.asarray(to_levels(saliency, limits), np.uint8)
            image = None if self._look.view is None else render(frame.image_bgr, grey, self._look)
            least_most = (float(saliency.min()), float(saliency.max()))
        pictures = Pictures(grey, image, limits, least_most, saliency if self._raw else None)
        return Drawn(frame, pictures, is_cut, frame.starts_anew)

    def _on_device(self, prepared: _Prepared) -> Drawn:
        frame = prepared.frame
        with self._clock.time("step"):  # the device does the other stages too
            elapsed, _ = self._advance(frame)
            pictures = self._stream.picture(frame.image_bgr, self._look, elapsed, raw=self._raw)
        self._check_finite(is_finite=pictures.is_finite)
        return Drawn(frame, pictures, prepared.is_cut, frame.starts_anew)

    def _check_finite(self, *, is_finite: bool) -> None:
        if not is_finite:
            spec = self._stream.spec
            advice = "; export it with --fp32" if spec.precision == "fp16" else ""
            raise ModelError(f"{spec.weights}: the model gave NaN or infinity for a frame{advice}")
