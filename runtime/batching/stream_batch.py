"""The places of a batch, which are given out one by one and taken back."""

from __future__ import annotations

import threading
import time

from salema.runtime.batching.joint_step import JointStep
from salema.runtime.batching.place_session import PicturePlaceSession, PlaceSession
from salema.runtime.batching.stepper import Stepper
from salema.runtime.closing import Closing
from salema.runtime.errors import UsageError
from salema.runtime.session import PictureSession
from salema.runtime.stream import SaliencyStream

USUAL_WAIT_MS = 20.0
_MOST_WAIT_MS = 10_000.0
_POLL_S = 0.05


class StreamBatch(Closing):
    """Runs independent videos in one batch of one model. Each takes a place, and steps it from its own thread.

    A batch goes when every place that keeps pace has a frame waiting, or when the oldest frame has waited `max_wait_ms`
    since the last batch ended, with what is there. A place keeps pace if its frame came within that time of the map
    before it: the others wait at most once for a source that stalls or dies, and never for a slow one. A place without
    a frame in a batch keeps its memory as it is. An error of a step reaches the places whose frames were in it.

    Args:
        stream: the model, opened for as many streams as there are places; closed with the batch.
        max_wait_ms: how long a frame waits for those of other places, at most.

    Raises:
        UsageError: the time is not 0 to 10 000 ms.
    """

    def __init__(self, stream: SaliencyStream, max_wait_ms: float = USUAL_WAIT_MS) -> None:
        check_max_wait(max_wait_ms)
        self._stream = stream
        self._joint = JointStep(stream.session, stream.streams)
        self._stepper = Stepper(self._joint, max_wait_ms / 1000, stream.abort)
        self._free = list(range(stream.streams))
        self._is_open = True
        self._changed = threading.Condition()

    @property
    def places(self) -> int:
        """How many places there are."""
        return self._stream.streams

    @property
    def free_places(self) -> int:
        """How many places nobody has."""
        with self._changed:
            return len(self._free)

    def take_place(self, timeout_s: float | None = None, stop: threading.Event | None = None) -> SaliencyStream | None:
        """Waits for a free place; returns it as a stream of one video, with an empty memory.

        Its `step`, `infer` and, on a GPU, `picture` block until the batch that holds the frame has run. Its `abort`
        ends that wait, and leaves the others alone. Its `close` frees the place.

        Args:
            timeout_s: how long to wait; None for as long as it takes.
            stop: once set, ends the wait.

        Returns:
            The stream; None if no place became free.

        Raises:
            UsageError: the batch is closed.
        """
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not (self._is_open and self._free):
                if not self._is_open:
                    raise UsageError("the model is closed; load it again")
                left_s = _POLL_S if until_s is None else min(_POLL_S, until_s - time.monotonic())
                if left_s <= 0 or (stop is not None and stop.is_set()):
                    return None
                self._changed.wait(left_s)
            place = self._free.pop(0)
        kind = PicturePlaceSession if isinstance(self._stream.session, PictureSession) else PlaceSession
        session = kind(self._stream.session, self._joint, self._stepper, place, lambda: self._leave(place))
        return SaliencyStream(session, 1, self._stream.model)

    def close(self) -> None:
        """Ends the places' waits with an error, and frees the model, after the step that is running."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
        self._stepper.close()
        self._stream.close()

    def _leave(self, place: int) -> None:
        self._stepper.forget(place)
        with self._changed:
            self._free.append(place)
            self._changed.notify_all()


def check_max_wait(max_wait_ms: float) -> None:
    """Refuses a time that is no wait.

    Raises:
        UsageError: it is not 0 to 10 000 ms.
    """
    if not 0 <= max_wait_ms <= _MOST_WAIT_MS:
        raise UsageError(f"--max-wait-ms {max_wait_ms:g}: give milliseconds, 0 to {_MOST_WAIT_MS:g}")
