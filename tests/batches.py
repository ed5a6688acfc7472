"""Batches held back, so that a test decides what is in each."""

import threading
import time


class Gate:
    """Lets so many batches through as `let` says, and keeps which places were in each."""

    def __init__(self, batch, through=0):
        self.places = []
        self._let, self._came = threading.Semaphore(through), threading.Semaphore(0)
        self._step, batch._joint.step = batch._joint.step, self._held

    def _held(self, requests):
        self.places.append([request.place for request in requests])
        self._came.release()
        assert self._let.acquire(timeout=30)
        return self._step(requests)

    def let(self, batches):
        self._let.release(batches)

    def wait_for_a_batch(self):
        assert self._came.acquire(timeout=30)


def waits(batch, count):
    """Returns once so many frames wait."""
    until_s = time.monotonic() + 30
    while len(batch._stepper._waiting) < count:
        assert time.monotonic() < until_s
        time.sleep(0.001)


def together(batch, gate, pool, work):
    """Makes two batches of `work` (places and frames): the first alone, then the others; returns their futures."""
    first, *others = work
    futures = [pool.submit(first[0].step, first[1])]
    gate.wait_for_a_batch()
    futures += [pool.submit(place.step, frame) for place, frame in others]
    waits(batch, len(others))
    gate.let(2)
    return futures
