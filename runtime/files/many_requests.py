"""Several requests at a time where each waits for an answer: an object store's comes after hundredths of a second."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from salema.runtime.files.remote_path import is_remote

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_REQUESTS = 16


def at_a_time(*paths: Path) -> int:
    """Returns how many requests to make at a time: 1 on this machine, or where each thread would need a connection."""
    remote = [path for path in paths if is_remote(path)]
    return _REQUESTS if remote and all(path.files.async_impl for path in remote) else 1


def each(work: Callable[[_Item], _Result], items: Iterable[_Item], together: int) -> Iterator[_Result]:
    """Yields what a function returns for each item, in their order; it is called in so many threads, if above 1."""
    if together == 1:
        yield from map(work, items)
        return
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only URLs need it

    with ThreadPoolExecutor(together) as pool:
        yield from pool.map(work, items)
