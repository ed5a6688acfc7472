"""Takes the frames of one source or client through the network, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from salema.runtime.errors import ModelError, SalemaError, reason
from salema.runtime.postprocess import NORMALISATIONS, Normaliser
from salema.runtime.serve.measures import Pace
from salema.runtime.serve.places import Place, Slot
from salema.runtime.serve.protocol import Upload
from salema.runtime.serve.results import Latest, Refusal, Result, made_smaller


class Stream:
    """One stream's place, its newest result, and its speed.

    Attributes:
        latest: the newest result.
        pace: its speed.
    """

    def __init__(self, place: Place, pace: Pace, picture_side: int) -> None:
        self._place, self.pace, self._picture_side = place, pace, picture_side
        self.latest = Latest()
        self._normalisers = {normalise: Normaliser(normalise) for normalise in NORMALISATIONS}
        self._shape: tuple[int, ...] = ()
        self._last_s = 0.0

    def step(self, image_bgr: NDArray[np.uint8], number: int, arrived_s: float, *, starts_anew: bool) -> Result:
        """Takes the next frame, `(h, w, 3)`; blocks until its result is there. One thread calls it.

        The state is reset if the frame starts anew, or has another size than the frame before.

        Args:
            image_bgr: uint8.
            number: the frame's number, which grows.
            arrived_s: when it came, by `time.monotonic`.
            starts_anew: whether the state is reset before it.

        Raises:
            ModelError: the model gave NaN or infinity, or no saliency map.
        """
        starts_anew = starts_anew or image_bgr.shape != self._shape
        self._shape = image_bgr.shape
        if starts_anew:
            self._place.reset()
        saliency = self._place.step(image_bgr)
        if not np.isfinite(saliency).all():
            raise ModelError("the model gave NaN or infinity for a frame; if it is in FP16, export it with --fp32")
        elapsed_s, self._last_s = arrived_s - self._last_s, arrived_s
        limits = {
            name: normaliser.limits(saliency, elapsed_s, starts_anew=starts_anew)
            for name, normaliser in self._normalisers.items()
        }
        latency_s = time.monotonic() - arrived_s
        image_bgr = made_smaller(image_bgr, self._picture_side)
        self.pace.frame(latency_s)
        return Result(
            number, image_bgr, saliency, limits, starts_anew=starts_anew, latency_ms=round(1000 * latency_s, 2)
        )

    def abort(self) -> None:
        """Ends the wait of a frame for its step, which then fails in its thread."""
        self._place.abort()

    def close(self) -> None:
        """Gives the place back, and ends the results."""
        self.latest.end()
        self._place.close()


@dataclass(frozen=True)
class Sent:
    """A frame as a client sent it.

    Attributes:
        upload: the frame.
        number: its number, from 1.
        arrived_s: when it came.
        starts_anew: whether the state is reset before it.
    """

    upload: Upload
    number: int
    arrived_s: float
    starts_anew: bool

    def instead_of(self, dropped: Sent) -> Sent:
        """Returns this frame, which takes over the reset of one before it that is dropped."""
        return replace(self, starts_anew=True) if dropped.starts_anew else self


class ClientStream:
    """The frames that one client sends. Of those that wait, the oldest is dropped once there are too many.

    Args:
        stream: its place; closed at the end.
        slot: held around all work for a large frame; see `slot_of`.
        queue: how many frames may wait.
        ended: called in the stream's thread, once its place is free, with why it ended if it failed.

    Attributes:
        failure: why it ended, if it failed.
    """

    def __init__(self, stream: Stream, slot: Slot, queue: int, ended: Callable[[str], None]) -> None:
        self._stream, self._slot, self._queue, self._ended = stream, slot, queue, ended
        self._changed = threading.Condition()
        self._waiting: deque[Sent] = deque()
        self._is_over, self._starts_anew, self._count = False, True, 0
        self._still_to_reset = False
        self.latest, self.pace = stream.latest, stream.pace
        self.failure = ""
        threading.Thread(target=self._run, daemon=True, name="client").start()

    def arrived(self, upload: Upload) -> Sent:
        """Counts a frame that came, and returns it; `offer` takes it."""
        with self._changed:
            self._count += 1
            starts_anew, self._starts_anew = self._starts_anew, False
            return Sent(upload, self._count, time.monotonic(), starts_anew)

    def offer(self, frame: Sent) -> None:
        """Takes a frame; never blocks."""
        with self._changed:
            self._waiting.append(frame)
            if len(self._waiting) > self._queue:
                dropped = self._waiting.popleft()
                self.pace.drop(1, "busy")
                self._waiting[0] = self._waiting[0].instead_of(dropped)
            self._changed.notify()

    def reset(self) -> None:
        """Empties the memory before the next frame that arrives."""
        with self._changed:
            self._starts_anew = True

    def close(self) -> None:
        """Ends the stream once a step that runs is done; does not wait for it. A frame that waits is not stepped."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._stream.abort()

    def _run(self) -> None:
        try:
            while (answer := self._next_answer()) is not None:
                self.latest.put(answer)
        except Exception as error:  # noqa: BLE001 - of whatever library; the client is told, and others go on
            self.failure = "" if self._is_over else reason(error)  # over: the step was ended from here
        finally:
            self._stream.close()
            self._ended(self.failure)

    def _next_answer(self) -> Result | Refusal | None:
        """Waits for the next frame, and answers it; None at the end."""
        if not self._wait():
            return None
        is_large = self._waiting[0].upload.is_large
        with self._slot if is_large else nullcontext():
            frame = self._take()
            if frame is None:
                return None
            answer = self._answer(frame)
            if is_large and isinstance(answer, Result):
                frame.upload.encode(answer)
            return answer

    def _answer(self, frame: Sent) -> Result | Refusal:
        self._still_to_reset = self._still_to_reset or frame.starts_anew
        try:
            image_bgr = frame.upload.decoded()
        except SalemaError as error:
            return Refusal(frame.number, str(error))
        starts_anew, self._still_to_reset = self._still_to_reset, False
        return self._stream.step(image_bgr, frame.number, frame.arrived_s, starts_anew=starts_anew)

    def _wait(self) -> bool:
        """Waits for a frame; False at the end."""
        with self._changed:
            while not (self._waiting or self._is_over):
                self._changed.wait()
            return not self._is_over

    def _take(self) -> Sent | None:
        with self._changed:
            return None if self._is_over else self._waiting.popleft()
