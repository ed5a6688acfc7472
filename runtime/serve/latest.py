"""The newest result of a stream: one thread puts it, any number of coroutines wait for it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Generic, Protocol, TypeVar


class Numbered(Protocol):
    """Something with a number that grows."""

    @property
    def number(self) -> int:
        """Its number, from 1."""
        ...


T = TypeVar("T", bound=Numbered)


class Latest(Generic[T]):
    """The newest item. Items that nobody took in time are gone: nothing is queued for a slow reader."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._item: T | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._is_over = False

    @property
    def item(self) -> T | None:
        """The newest item, if there is one."""
        return self._item

    def put(self, item: T) -> None:
        """Replaces the item, and wakes those who wait for it."""
        with self._lock:
            self._item = item
            self._wake()

    def end(self) -> None:
        """Says that no more items come."""
        with self._lock:
            self._is_over = True
            self._wake()

    async def after(self, number: int) -> T | None:
        """Waits for an item with a greater number, and returns the newest; None once no more come."""
        while True:
            with self._lock:
                if self._item is not None and self._item.number > number:
                    return self._item
                if self._is_over:
                    return None
                waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.add(waiting)
            try:
                await waiting
            finally:
                with self._lock:
                    self._waiting.discard(waiting)

    def _wake(self) -> None:
        for waiting in self._waiting:
            with suppress(RuntimeError):  # its loop is closed
                waiting.get_loop().call_soon_threadsafe(_resolve, waiting)
        self._waiting.clear()


def _resolve(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
