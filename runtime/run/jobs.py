"""Work on many videos, one or several at a time, where one failure is not the end of the others."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, TypeVar

from salema.runtime.errors import SalemaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from salema.runtime.stream import SaliencyStream

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def run_jobs(
    items: Sequence[_Item],
    open_stream: Callable[[], SaliencyStream],
    work: Callable[[_Item, SaliencyStream], _Result],
    jobs: int = 1,
) -> Iterator[tuple[_Item, _Result | SalemaError | OSError]]:
    """Yields each item with what `work` made of it, or what went wrong, as they are done.

    Args:
        items: what to work on.
        open_stream: opens the model; each job has one of its own.
        work: takes an item and a stream. With one job it runs in the caller's thread.
        jobs: how many at a time.

    Raises:
        SalemaError: the model can't be opened: one error, not one an item.
    """
    opened = [open_stream()]
    try:
        if jobs == 1:
            for item in items:
                yield item, _attempt(work, item, opened[0])
        else:
            yield from _side_by_side(items, open_stream, opened, work, jobs)
    finally:
        for stream in opened:
            stream.close()


def _attempt(work: Callable[..., _Result], *arguments: object) -> _Result | SalemaError | OSError:
    try:
        return work(*arguments)
    except (SalemaError, OSError) as error:
        return error


def _side_by_side(
    items: Sequence[_Item],
    open_stream: Callable[[], SaliencyStream],
    opened: list[SaliencyStream],
    work: Callable[[_Item, SaliencyStream], _Result],
    jobs: int,
) -> Iterator[tuple[_Item, _Result | SalemaError | OSError]]:
    own, spare, lock = threading.local(), list(opened), threading.Lock()

    def run(item: _Item) -> _Result:
        if not hasattr(own, "stream"):
            with lock:
                if spare:
                    own.stream = spare.pop()
                else:
                    own.stream = open_stream()
                    opened.append(own.stream)
        return work(item, own.stream)

    with ThreadPoolExecutor(jobs, "video") as pool:
        futures = {pool.submit(_attempt, run, item): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:  # who takes no more of them waits for what is under way, not for all
            for future in futures:
                future.cancel()
