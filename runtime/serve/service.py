"""What one server has: the model's places, its sources, its clients, its limits."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
from aiolimiter import AsyncLimiter
from numpy.typing import NDArray

from salema.runtime.cpu import usable_cores
from salema.runtime.errors import SalemaError, UsageError, reason
from salema.runtime.serve.guard import Guard
from salema.runtime.serve.limits import Limits
from salema.runtime.serve.measures import CLIENTS, IMAGES, Metrics, Pace
from salema.runtime.serve.places import Places, slot_of
from salema.runtime.serve.protocol import Upload
from salema.runtime.serve.results import Result
from salema.runtime.serve.source_streams import SourceStream
from salema.runtime.serve.streams import ClientStream, Stream
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import Source
from salema.runtime.spec import ModelSpec

_POLL_S = 0.1
_MOST_TOLD = 100  # different failures


class FullError(SalemaError):
    """All places are taken."""

    status = 503


class NoSourceError(UsageError):
    """There is no source of this number."""

    status = 404


@dataclass(frozen=True)
class Model:
    """The model's facts, and where it runs, for people."""

    spec: ModelSpec
    description: str


def limiter(rate: float) -> AsyncLimiter:
    """Returns a limit of so many a second, also of less than one."""
    most = max(rate, 1)
    return AsyncLimiter(most, most / rate)


class Service:
    """One server's streams.

    Args:
        model: the model's facts.
        places: where streams run.
        limits: how much is taken.
        guard: who may ask.
        notify: takes sentences for the one who runs the server.

    Attributes:
        sources: what it plays itself, in order.
        workers: threads that encode.
        steppers: threads that step single images.
        is_over: whether it is being stopped.
    """

    def __init__(
        self, model: Model, places: Places, limits: Limits, guard: Guard, notify: Callable[[str], None] = lambda _: None
    ) -> None:
        self.model, self.limits, self.guard = model, limits, guard
        self.metrics = Metrics(model.spec.weights, model.description)
        self.sources: list[SourceStream] = []
        self.workers = ThreadPoolExecutor(usable_cores() + 1, "work")
        self.steppers = ThreadPoolExecutor(limits.max_streams, "image")
        self._places, self._slot, self._notify = places, slot_of(places), notify
        self._lock = threading.Lock()
        self._clients: set[ClientStream] = set()
        self._streams = self._viewers = 0
        self._told: set[str] = set()
        self._failed_s = -math.inf
        self.is_over = False

    def add_source(self, source: Source, selection: Selection) -> None:
        """Begins to play a source."""
        stream = self._stream(source.name)
        added = SourceStream(source, stream, selection, self._notify)
        self.metrics.source_up.labels(source.name).set_function(lambda: float(added.state == "playing"))
        self.sources.append(added)
        added.start()

    def source(self, number: int) -> SourceStream:
        """Returns a source.

        Raises:
            NoSourceError: there are fewer.
        """
        if not 0 <= number < len(self.sources):
            raise NoSourceError(f"source {number}: there are {len(self.sources)}, from 0 on")
        return self.sources[number]

    def wait_for_sources(self, stop: threading.Event) -> None:
        """Waits until one source plays, or all have failed, or for a stop.

        Raises:
            SalemaError: all have failed.
        """
        while self.sources and not stop.is_set():
            if any(source.state in {"playing", "ended"} for source in self.sources):
                return
            if all(source.settled.is_set() for source in self.sources):
                raise SalemaError("; ".join(source.problem for source in self.sources))
            stop.wait(_POLL_S)

    @property
    def is_ready(self) -> bool:
        """Whether it gives maps: of one source, if it has sources; not after a failure until the next map."""
        if self.is_over or self._failed_s > self.metrics.last_map_s:
            return False
        return not self.sources or any(source.state == "playing" for source in self.sources)

    def tell_failure(self, why: str) -> None:
        """Tells the one who runs the server of a failure of the server's own, once of each kind."""
        with self._lock:
            if why in self._told or len(self._told) >= _MOST_TOLD:
                return
            self._told.add(why)
        self._notify(why)

    def open_client(self) -> ClientStream:
        """Takes a place for a client that sends frames; it closes the stream.

        Raises:
            FullError: all places are taken.
        """
        self._take_stream()
        try:
            client = ClientStream(self._stream(CLIENTS), self._slot, self.limits.queue, self._client_ended)
        except BaseException:
            self._give_back_stream()
            raise
        with self._lock:
            self._clients.add(client)
        return client

    def forget(self, client: ClientStream) -> None:
        """Closes a client's stream."""
        client.close()
        with self._lock:
            self._clients.discard(client)

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Counts one who sends a single image, which `step_image` then takes.

        Raises:
            FullError: all places are taken.
        """
        self._take_stream()
        try:
            yield
        finally:
            self._give_back_stream()

    def step_image(self, upload: Upload, arrived_s: float) -> Result:
        """Returns the result of one image by itself, encoded; blocks.

        Raises:
            SalemaError: it can't be decoded, or the model failed.
        """
        with self._slot if upload.is_large else nullcontext():
            result = self._stepped(upload.decoded(), arrived_s)
            upload.encode(result)
            return result

    @contextmanager
    def viewing(self) -> Iterator[None]:
        """Counts one who watches a source.

        Raises:
            FullError: there are too many.
        """
        with self._lock:
            if self._viewers >= self.limits.max_viewers:
                self.metrics.refused.labels("viewers").inc()
                raise FullError(f"{self._viewers} clients watch already; try again later (--max-viewers)")
            self._viewers += 1
            self.metrics.viewers.set(self._viewers)
        try:
            yield
        finally:
            with self._lock:
                self._viewers -= 1
                self.metrics.viewers.set(self._viewers)

    def stop(self) -> None:
        """Ends all streams, so that connections end; does not wait."""
        self.is_over = True
        for source in self.sources:
            source.stop()
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            client.latest.end()
            client.close()

    def close(self) -> None:
        """Ends all streams and threads, and waits a moment for them."""
        self.stop()
        for source in self.sources:
            source.close()
        for pool in (self.steppers, self.workers):
            pool.shutdown(cancel_futures=True)

    def _stream(self, label: str) -> Stream:
        place = self._places.take_place(0)
        if place is None:
            raise FullError("all places are taken; try again later")
        return Stream(place, Pace(self.metrics, label), self.limits.picture_side)

    def _stepped(self, image_bgr: NDArray[np.uint8], arrived_s: float) -> Result:
        try:
            with closing(self._stream(IMAGES)) as stream:
                return stream.step(image_bgr, 1, arrived_s, starts_anew=True)
        except FullError:
            raise
        except Exception as error:
            self._failed(reason(error))
            raise

    def _take_stream(self) -> None:
        with self._lock:
            if self._streams >= self.limits.max_streams or self.is_over:
                self.metrics.refused.labels("streams").inc()
                raise FullError(f"{self._streams} clients send frames already; try again later (--max-streams)")
            self._streams += 1
            self.metrics.streams.set(self._streams)

    def _give_back_stream(self) -> None:
        with self._lock:
            self._streams -= 1
            self.metrics.streams.set(self._streams)

    def _client_ended(self, failure: str) -> None:
        self._give_back_stream()
        if failure:
            self._failed(failure)

    def _failed(self, why: str) -> None:
        if not self.is_over:  # else the step was ended from here
            self._failed_s = time.monotonic()
            self.tell_failure(f"a frame of a client failed: {why}")
