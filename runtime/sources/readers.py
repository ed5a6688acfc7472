"""Opens a source with the reader for its kind."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from salema.runtime.errors import VideoError
from salema.runtime.run.stage_threads import SOURCE_THREAD
from salema.runtime.sources.animation_reader import AnimationReader, is_animated_webp
from salema.runtime.sources.camera import CameraReader
from salema.runtime.sources.frames import Frame, Reader
from salema.runtime.sources.image_reader import ImageReader
from salema.runtime.sources.pipes import GStreamerPipe, StdinPipe, open_stdin
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import Source
from salema.runtime.video.damage import Damage
from salema.runtime.video.video_reader import VideoReader
from salema.runtime.wording import counted

_POLL_S = 0.1


def open_reader(
    source: Source,
    selection: Selection,
    stop: threading.Event,
    damage: Damage | None = None,
    sound_damage: Damage | None = None,
) -> Reader:
    """Opens a source.

    `stop`, once set, ends the opening and the frames. `damage` and `sound_damage` count what can't be decoded; None for
    a new count.

    Raises:
        VideoError: it can't be read.
        UsageError, MissingDependencyError: see `GStreamerPipe` and `open_stdin`.
    """
    given, shown = source.given, source.shown
    deinterlace = selection.deinterlace
    how: dict[str, Any] = {"damage": damage, "sound_damage": sound_damage, "deinterlace": deinterlace, "stop": stop}
    if source.kind == "images":
        fps, upright = Fraction(selection.fps).limit_denominator(1001), not source.of_dataset
        return ImageReader(source.images, shown, fps, damage, stop, upright=upright)
    if source.kind == "camera":
        camera = int(given) if given.isdigit() else given
        return _open_stoppably(lambda: CameraReader(camera), shown, stop)
    if source.kind == "video" and is_animated_webp(Path(given)):
        return AnimationReader(Path(given))
    if source.kind == "video":
        return VideoReader(Path(given), None, selection.start_s, **how)
    if source.kind == "url":
        return _open_stoppably(partial(VideoReader, given, shown, is_live=selection.live, **how), shown, stop)
    is_live = source.is_live_pipeline
    pipe = open_stdin(stop) if source.kind == "stdin" else GStreamerPipe(given, stop, is_live=is_live)
    return PipeReader(pipe, shown, is_live=is_live, **how)


def _open_stoppably(open_it: Callable[[], Reader], shown: str, stop: threading.Event) -> Reader:
    """Opens a source in another thread, so that a stop need not wait for a slow one."""
    answers: queue.Queue[Reader | BaseException] = queue.Queue()

    def work() -> None:
        try:
            answers.put(open_it())
        except BaseException as error:  # noqa: BLE001 - raised below
            answers.put(error)

    threading.Thread(target=work, daemon=True, name=SOURCE_THREAD).start()
    while not stop.is_set():
        with suppress(queue.Empty):
            answer = answers.get(timeout=_POLL_S)
            if isinstance(answer, BaseException):
                raise answer
            return answer
    raise VideoError(f"{shown}: stopped before it was open")


class PipeReader(VideoReader):
    """A `Reader` of a video that comes through a pipe. It closes the pipe."""

    def __init__(self, pipe: StdinPipe | GStreamerPipe, name: str, *, is_live: bool, **how: Any) -> None:
        self._pipe, self._is_open = pipe, False
        try:
            super().__init__(pipe, name, **how)
            self._is_open = True
        except VideoError as error:
            if pipe.failure is not None:
                raise VideoError(f"{name}: {pipe.failure}") from error
            if isinstance(pipe, StdinPipe):
                advice = "name the file if it is an MP4 with its index at the end, or pipe it as MKV"
                raise VideoError(f"{error}; {advice}") from error
            raise
        finally:
            if not self._is_open:
                pipe.close()
        self.is_live = is_live

    def __iter__(self) -> Iterator[Frame]:
        count = 0
        for frame in super().__iter__():
            yield frame
            count += 1
        if self._pipe.failure is not None:
            raise VideoError(f"{self.name}: breaks off after {counted(count, 'frame')} ({self._pipe.failure})")

    def close(self) -> None:
        """See `VideoReader`."""
        super().close()
        self._pipe.close()
