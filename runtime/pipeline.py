"""A whole video through a stream: decode, preprocess, step, postprocess and encode, side by side."""

from __future__ import annotations

import signal
import threading
import time
from collections import defaultdict
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from salema.runtime.errors import ModelError, UsageError, VideoError
from salema.runtime.files import make_folder, write_bytes
from salema.runtime.postprocess import View, render, to_grey
from salema.runtime.preprocess import to_network_size
from salema.runtime.side_by_side import side_by_side
from salema.runtime.video import VideoReader, VideoWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from salema.runtime.stream import SaliencyStream
    from salema.runtime.video import Frame

STAGES = ("decode", "preprocess", "step", "postprocess", "encode")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        frames: frames processed.
        frames_expected: what the file said it holds, or None.
        seconds: wall time, model loading not included.
        fps: frames over seconds.
        stage_ms: mean milliseconds per frame of each of `STAGES`, which run side by side; encode includes writing the
            maps.
        interrupted: whether SIGINT or SIGTERM ended it.
        error: why the source broke off, or None.
        notes: what a user should know besides: sound that was lost, maps of an earlier run.
    """

    frames: int
    frames_expected: int | None
    seconds: float
    fps: float
    stage_ms: dict[str, float]
    interrupted: bool
    error: str | None
    notes: tuple[str, ...] = ()


class Drawn(NamedTuple):
    """A frame, its 8-bit map `[H, W]`, and the picture `[h, w, 3]` if one was wanted."""

    frame: Frame
    grey: NDArray[np.uint8]
    picture: NDArray[np.uint8] | None


class _Clock:
    """Sums the wall time of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    def timed(self, stage: str, items: Iterable[Frame]) -> Iterator[Frame]:
        iterator = iter(items)
        while True:
            with self.time(stage):
                item = next(iterator, None)
            if item is None:
                return
            yield item


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """Turns the first SIGINT or SIGTERM into an event; a second one acts as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals are the main thread's
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(_number: int, _frame: object) -> None:
        restore()
        event.set()

    for number in _SIGNALS:
        signal.signal(number, request)
    try:
        yield event
    finally:
        restore()


class _Outputs:
    """The MP4 and the maps of one video, whichever were asked for."""

    def __init__(self, reader: VideoReader, video: Path | None, maps: Path | None, view: View, clock: _Clock) -> None:
        self._maps, self._view, self._clock = maps, view, clock
        self._count = 0
        self._writer = None
        if maps is not None:
            make_folder(maps)
        if video is not None:
            make_folder(video.parent)
            width = reader.width * (2 if view == "side-by-side" else 1)
            self._writer = VideoWriter(video, reader, reader.height, width)

    def __enter__(self) -> Self:
        if self._writer is not None:
            self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)

    @property
    def view(self) -> View | None:
        """What picture is wanted of each frame."""
        return None if self._writer is None else self._view

    def write(self, drawn: Drawn) -> None:
        self._count += 1
        with self._clock.time("encode"):
            if self._writer is not None and drawn.picture is not None:
                self._writer.write(drawn.picture, drawn.frame)
            if self._maps is not None:
                png = cv2.imencode(".png", drawn.grey)[1].tobytes()
                write_bytes(self._maps / f"{self._count:04d}.png", png)

    def finish(self, *, all_sound: bool) -> list[str]:
        """Completes the MP4; returns what a user should know."""
        notes = []
        if self._writer is not None:
            with self._clock.time("encode"):
                self._writer.finish(all_sound=all_sound)
            notes += [self._writer.sound_problem] if self._writer.sound_problem else []
        if self._maps is not None:
            written = {f"{number:04d}.png" for number in range(1, self._count + 1)}
            older = sum(path.name not in written for path in self._maps.glob("*.png"))
            notes += [f"{self._maps} also holds {older} PNG files that this run did not write"] if older else []
        return notes


def process_video(
    stream: SaliencyStream,
    source: Path,
    video: Path | None,
    maps: Path | None = None,
    view: View = "overlay",
    progress: Callable[[Iterable[Drawn], int | None], Iterable[Drawn]] | None = None,
) -> Summary:
    """Runs a video file through a stream from its first frame to its last, and writes what was asked for.

    SIGINT, SIGTERM and a source that breaks off end it early: what was written until then is finished and kept.

    Args:
        stream: the model, for one video; its state starts anew.
        source: the video file.
        video: MP4 file to write, or None.
        maps: folder for the maps as `0001.png`, ... at network size, named and normalised as published; or None.
        view: what the MP4 shows.
        progress: wraps the frames, given how many to expect, as tqdm does.

    Raises:
        UsageError: an output would overwrite the source, or the stream is for several videos.
        ModelError: the model gave NaN or infinity.
        VideoError: the source is missing, unreadable or empty.
        OutputError: an output can't be written; the MP4 is then removed.
    """
    if video is not None and video.exists() and source.exists() and video.samefile(source):
        raise UsageError(f"{video}: is the source itself; choose another name with -o")
    if stream.streams != 1:
        raise UsageError(
            f"the model was exported with --batch {stream.streams}, and a video is one stream; export it with --batch 1"
        )
    clock, count, broken = _Clock(), 0, None
    stream.reset()
    start = time.perf_counter()
    with (
        VideoReader(source) as reader,
        stop_requested() as stop,
        _Outputs(reader, video, maps, view, clock) as outputs,
    ):
        drawing = _Drawing(stream, outputs.view, clock)
        drawn = side_by_side(clock.timed("decode", reader), drawing.stages)
        try:
            with closing(drawn):
                for item in progress(drawn, reader.frame_count) if progress else drawn:
                    outputs.write(item)
                    count += 1
                    if stop.is_set():
                        break
        except VideoError as error:
            broken = str(error)
        notes = outputs.finish(all_sound=not (stop.is_set() or broken))
    seconds = time.perf_counter() - start
    stage_ms = {stage: 1000 * clock.seconds[stage] / count for stage in STAGES}
    return Summary(count, reader.frame_count, seconds, count / seconds, stage_ms, stop.is_set(), broken, tuple(notes))


class _Drawing:
    """What happens between decoding and encoding, as stages that run side by side."""

    def __init__(self, stream: SaliencyStream, view: View | None, clock: _Clock) -> None:
        self._stream, self._view, self._clock = stream, view, clock

    @property
    def stages(self) -> list[Callable[[Any], Any]]:
        return [self._on_device] if self._stream.draws_pictures else [self._preprocess, self._step, self._postprocess]

    def _on_device(self, frame: Frame) -> Drawn:
        with self._clock.time("step"):  # the device does the rest as well
            pictures = self._stream.picture(frame.image_bgr, self._view)
        _check_finite(self._stream, is_finite=pictures.is_finite)
        return Drawn(frame, pictures.grey, pictures.image_bgr)

    def _preprocess(self, frame: Frame) -> tuple[Frame, NDArray[np.uint8]]:
        with self._clock.time("preprocess"):
            return frame, to_network_size(frame.image_bgr, self._stream.spec.height, self._stream.spec.width)

    def _step(self, item: tuple[Frame, NDArray[np.uint8]]) -> tuple[Frame, NDArray[np.float32]]:
        frame, small = item
        with self._clock.time("step"):
            saliency: NDArray[np.float32] = self._stream.infer(small[np.newaxis])[0]
        _check_finite(self._stream, is_finite=bool(np.isfinite(saliency).all()))
        return frame, saliency

    def _postprocess(self, item: tuple[Frame, NDArray[np.float32]]) -> Drawn:
        frame, saliency = item
        with self._clock.time("postprocess"):
            grey = to_grey(saliency)
            return Drawn(frame, grey, None if self._view is None else render(frame.image_bgr, grey, self._view))


def _check_finite(stream: SaliencyStream, *, is_finite: bool) -> None:
    if not is_finite:
        advice = "; export it with --fp32" if stream.spec.precision == "fp16" else ""
        raise ModelError(f"{stream.spec.weights}: the model gave NaN or infinity for a frame{advice}")
