"""A pipeline of functions, each in a thread of its own, with bounded queues between them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

_DEPTH = 3  # items between two stages: enough to even out their times, few enough to hold in memory at 8K
_POLL_S = 0.05
_SOURCE_JOIN_S, _HURRIED_JOIN_S = 10, 0.5
# A step of a large network takes some seconds, and its session must not be closed meanwhile; OpenVINO and ncnn can't
# abort one. After a stop the wait is shorter, so that files are finished before a system kills the process (at 30 s).
_STAGE_JOIN_S, _HURRIED_STAGE_JOIN_S = 60, 20
SOURCE_THREAD = "source"  # the name of threads that may hang waiting for a source
_STAGE_THREAD = "stage"


class _Failure:
    """An exception, queued in its place among the results."""

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

    The source and each stage run in their own threads. An exception in one is raised here, after the results of all
    items before it; the others are then stopped. Close or exhaust the generator before you close what the stages use.

    Args:
        source: the items.
        stages: functions of one item, in order.
        depth: how many items may wait between two stages, which bounds the memory.
        stop: once set, ends the results, even while the source makes it wait.
        abort: aborts a stage's work when the results are closed; may be called many times.
        works_in_source: whether the source itself does a stage's work, and never hangs once it is stopped.
    """
    halt = threading.Event()
    queues: list[queue.Queue[Any]] = [queue.Queue(depth) for _ in range(len(stages) + 1)]
    threads = [_start(SOURCE_THREAD if not works_in_source else _STAGE_THREAD, _produce, source, queues[0], halt)]
    threads += [
        _start(_STAGE_THREAD, _work, stage, inbox, outbox, halt)
        for stage, inbox, outbox in zip(stages, queues, queues[1:], strict=False)
    ]
    try:
        while (item := _get(queues[-1], halt, stop)) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        halt.set()
        for thread in threads:
            _join(thread, abort, in_a_hurry=stop is not None and stop.is_set())


def _start(name: str, target: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True, name=name)
    thread.start()
    return thread


def is_something_left() -> bool:
    """Whether a thread is still running: it waits for a source, or for a step that doesn't end."""
    return any(thread.name in {SOURCE_THREAD, _STAGE_THREAD} and thread.is_alive() for thread in threading.enumerate())


def _join(thread: threading.Thread, abort: Callable[[], None] | None, *, in_a_hurry: bool) -> None:
    """Waits for a thread to end, up to a limit that is shorter if a stop was asked for."""
    if thread.name == SOURCE_THREAD:
        thread.join(_HURRIED_JOIN_S if in_a_hurry else _SOURCE_JOIN_S)
        return
    until_s = time.monotonic() + (_HURRIED_STAGE_JOIN_S if in_a_hurry else _STAGE_JOIN_S)
    while thread.is_alive() and time.monotonic() < until_s:
        if abort is not None:
            abort()  # repeatedly, as it may be between two steps
        thread.join(_POLL_S)


def _produce(source: Iterable[Any], outbox: queue.Queue[Any], halt: threading.Event) -> None:
    try:
        for item in source:
            if not _put(outbox, item, halt):
                return
    except BaseException as error:  # noqa: BLE001 - side_by_side raises it
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
    """Puts an item; returns False if everything was stopped first."""
    while not halt.is_set():
        try:
            outbox.put(item, timeout=_POLL_S)
        except queue.Full:
            continue
        return True
    return False


def _get(inbox: queue.Queue[Any], halt: threading.Event, stop: threading.Event | None = None) -> Any:
    """Takes an item; returns `_END` once everything was stopped."""
    while not (halt.is_set() or (stop is not None and stop.is_set())):
        try:
            return inbox.get(timeout=_POLL_S)
        except queue.Empty:  # noqa: PERF203 - the loop is for waiting
            continue
    return _END
