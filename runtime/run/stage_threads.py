"""Functions that run side by side, each in a thread of its own, over items that pass through all of them in order."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

_DEPTH = 3  # items between two stages: enough to even out their times, few enough to hold at 8K
_POLL_S = 0.05
_SOURCE_JOIN_S, _HURRIED_JOIN_S = 10, 0.5
# A step of a large network takes some seconds, and what it works on is not to be closed meanwhile. OpenVINO and ncnn
# can't end one: where somebody wants to go, files are finished before systems that wait for 30 s kill the process.
_STAGE_JOIN_S, _HURRIED_STAGE_JOIN_S = 60, 20
SOURCE_THREAD = "source"  # the name of threads that may wait for a source
_STAGE_THREAD = "stage"


class _Failure:
    """An exception on its way to whoever takes the results, in its place among them."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


def side_by_side(
    source: Iterable[Any],
    stages: Sequence[Callable[[Any], Any]],
    depth: int = _DEPTH,
    stop: threading.Event | None = None,
    abort: Callable[[], None] | None = None,
    *,
    works_in_source: bool = False,
) -> Generator[Any, None, None]:
    """Yields what the last stage makes of each item, in the source's order.

    The source and every stage run in threads of their own, at most `depth` items ahead of the next one; memory is
    bounded by that. What one of them raises is raised here, after the results of all items before it; the others are
    then stopped. Close the generator (or use it up) before what the stages work on is closed.

    Args:
        source: the items; it is iterated in a thread.
        stages: functions of one item, in order.
        depth: how many items may wait between two stages.
        stop: ends the results, also while the source is waited for.
        abort: ends what a stage is doing, if nobody wants it any more; may be called often.
        works_in_source: whether the source does a stage's work, and waits for nothing once it is stopped.
    """
    halt = threading.Event()
    queues: list[queue.Queue[Any]] = [queue.Queue(depth) for _ in range(len(stages) + 1)]
    source_name = _STAGE_THREAD if works_in_source else SOURCE_THREAD
    threads = [threading.Thread(target=_produce, args=(source, queues[0], halt), daemon=True, name=source_name)]
    for stage, inbox, outbox in zip(stages, queues, queues[1:], strict=False):
        threads.append(
            threading.Thread(target=_work, args=(stage, inbox, outbox, halt), daemon=True, name=_STAGE_THREAD)
        )
    for thread in threads:
        thread.start()
    try:
        while (item := _get(queues[-1], halt, stop)) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        halt.set()
        for thread in threads:
            _join(thread, abort, in_a_hurry=stop is not None and stop.is_set())


def is_something_left() -> bool:
    """Whether a thread is left behind, which waits for a source, or is in a step that does not end."""
    return any(thread.name in {SOURCE_THREAD, _STAGE_THREAD} and thread.is_alive() for thread in threading.enumerate())


def _join(thread: threading.Thread, abort: Callable[[], None] | None, *, in_a_hurry: bool) -> None:
    """Waits for a thread's end. One that does not come to it is left behind, sooner if somebody wants to go."""
    if thread.name == SOURCE_THREAD:
        thread.join(_HURRIED_JOIN_S if in_a_hurry else _SOURCE_JOIN_S)
        return
    until_s = time.monotonic() + (_HURRIED_STAGE_JOIN_S if in_a_hurry else _STAGE_JOIN_S)
    while thread.is_alive() and time.monotonic() < until_s:
        if abort is not None:
            abort()  # again and again: it may be between two of them
        thread.join(_POLL_S)


def _produce(source: Iterable[Any], outbox: queue.Queue[Any], halt: threading.Event) -> None:
    try:
        for item in source:
            if not _put(outbox, item, halt):
                return
    except BaseException as error:  # noqa: BLE001 - it is raised where the results are taken
        _put(outbox, _Failure(error), halt)
    else:
        _put(outbox, _END, halt)


def _work(
    stage: Callable[[Any], Any], inbox: queue.Queue[Any], outbox: queue.Queue[Any], halt: threading.Event
) -> None:
    while True:
        item = _get(inbox, halt)
        ends = item is _END or isinstance(item, _Failure)
        if not ends:
            try:
                item = stage(item)
            except BaseException as error:  # noqa: BLE001 - see _produce
                item, ends = _Failure(error), True
        if not _put(outbox, item, halt) or ends:
            return


def _put(outbox: queue.Queue[Any], item: Any, halt: threading.Event) -> bool:
    """Puts an item, and returns whether it did so before everything was stopped."""
    while not halt.is_set():
        try:
            outbox.put(item, timeout=_POLL_S)
        except queue.Full:
            continue
        return True
    return False


def _get(inbox: queue.Queue[Any], halt: threading.Event, stop: threading.Event | None = None) -> Any:
    """Takes an item; the end once everything was stopped."""
    while not (halt.is_set() or (stop is not None and stop.is_set())):
        try:
            return inbox.get(timeout=_POLL_S)
        except queue.Empty:  # noqa: PERF203 - that is what it waits in
            continue
    return _END
