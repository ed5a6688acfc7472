"""Collects the frames of all places into batches, and runs these in a thread of its own."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError

from salema.runtime.batching.joint_step import JointStep, Request, Stepped
from salema.runtime.errors import BackendError, UsageError


class Stepper:
    """Decides when a batch goes, and hands each place what came of its frame.

    A batch goes when every place that keeps pace has a frame waiting, or when the oldest frame has waited `max_wait_s`
    since the last batch ended, with what is there. A place keeps pace if its frame came within that time of the map
    before it, and has been in every batch since. So the others wait at most once for a source that stalls or dies, and
    never for a slow one.
    """

    def __init__(self, joint: JointStep, max_wait_s: float, abort: Callable[[], None]) -> None:
        """`abort` ends the step that is running, if the backend can."""
        self._joint, self._max_wait_s, self._abort = joint, max_wait_s, abort
        self._waiting: dict[int, Request] = {}
        self._running: list[Request] = []
        self._served_s: dict[int, float] = {}  # when each place got its last map
        self._in_pace: set[int] = set()
        self._idle_s = -math.inf  # when the last batch ended
        self._is_open = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="batch", daemon=True)
        self._thread.start()

    def step(self, request: Request) -> Stepped:
        """Takes a place's next frame, and waits until the batch that holds it has run.

        Raises:
            UsageError: the batch is closed.
            BackendError: the wait was given up.
            Exception: what the backend raised; every place whose frame was in the batch gets it.
        """
        with self._changed:
            if self._is_open:
                served_s = self._served_s.get(request.place)
                if served_s is not None and request.since_s - served_s <= self._max_wait_s:
                    self._in_pace.add(request.place)
                self._waiting[request.place] = request
                self._changed.notify_all()
            else:
                request.done.set_exception(_closed())
        try:
            return request.done.result()
        except CancelledError:
            raise BackendError("the step was aborted") from None

    def give_up(self, place: int) -> None:
        """Ends a place's wait for its map. A step that is running is ended only if no other place waits for it."""
        with self._changed:
            request = self._waiting.pop(place, None)
            if request is not None:
                request.done.cancel()
                self._changed.notify_all()
            for request in self._running:
                request.is_given_up |= request.place == place
            if self._running and all(request.is_given_up for request in self._running):
                self._abort()  # inside the lock, so that it can't hit the next batch

    def forget(self, place: int) -> None:
        """Gives up a place's wait, and no longer waits for the place."""
        self.give_up(place)
        with self._changed:
            self._in_pace.discard(place)
            self._served_s.pop(place, None)
            self._changed.notify_all()

    def close(self) -> None:
        """Ends all waits with an error, after the step that is running."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while self._run_one():
            pass

    def _run_one(self) -> bool:
        """Runs one batch; returns False once everything is closed. Its locals hold states that the next may need."""
        requests = self._next_requests()
        if not requests:
            return False
        results: list[tuple[Request, Stepped | BaseException]] = []
        for group in self._joint.groups(requests):
            try:
                results += zip(group, self._joint.step(group), strict=True)
            except BaseException as error:  # noqa: BLE001, PERF203 - `step` raises it where the frames came from
                results += [(request, error) for request in group]
        self._served(requests)
        for request, result in results:
            if isinstance(result, BaseException):
                request.done.set_exception(result)
            else:
                request.done.set_result(result)
        return True

    def _served(self, requests: Sequence[Request]) -> None:
        with self._changed:
            self._running = []
            self._idle_s = time.monotonic()
            self._served_s |= {request.place: self._idle_s for request in requests}

    def _next_requests(self) -> list[Request]:
        """Waits until a batch can go; returns its frames in the places' order, or none once everything is closed."""
        with self._changed:
            while self._is_open and (left_s := self._left_s()) != 0:
                self._changed.wait(left_s)
            requests = [self._waiting[place] for place in sorted(self._waiting)]
            self._waiting.clear()
            if not self._is_open:
                for request in requests:
                    request.done.set_exception(_closed())
                return []
            for request in requests:
                request.done.set_running_or_notify_cancel()
            self._in_pace &= {request.place for request in requests}
            self._running = requests
            return requests

    def _left_s(self) -> float | None:
        """Returns how long the frames may go on waiting, 0 if not at all; None if there is none."""
        if not self._waiting:
            return None
        if self._in_pace <= self._waiting.keys():
            return 0
        # From the last batch's end on: else frames that came while a long step ran would go without the places that it
        # served, and there would be two groups for ever.
        since_s = max(self._idle_s, min(request.since_s for request in self._waiting.values()))
        return max(0.0, since_s + self._max_wait_s - time.monotonic())


def _closed() -> UsageError:
    return UsageError("the model is closed; load it again")
