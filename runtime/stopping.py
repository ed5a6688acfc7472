"""Signals that ask a command to end: it ends well on the first, whatever follows, until somebody insists."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_PATIENCE_S = 3.0  # `timeout`, shells and wrappers send a signal twice or more within some milliseconds
_ENOUGH = 3
_WARNING = b"still finishing files; press Ctrl-C once more to end at once\n"


class _Stop(threading.Event):
    """An event that a signal's handler can set while the main thread, which it has come into, waits for it.

    A plain one's lock can't be taken twice by one thread: the handler would wait for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cond = threading.Condition(threading.RLock())  # Python 3.10 to 3.13 have it under this name


class _Requests:
    """The signals that have come, and who wants to know."""

    def __init__(self) -> None:
        self.events: list[threading.Event] = []
        self.count, self.first_s = 0, 0.0

    def take(self, number: int, _frame: object) -> None:
        """Takes a signal. The first one asks for the end; of the others only Ctrl-C counts, and only late.

        Raises:
            KeyboardInterrupt: it is the first one, and nobody waits for it with `stop_requested`.
        """
        self.count += 1
        if self.count == 1:
            self.first_s = time.monotonic()
            if not self.events:
                raise KeyboardInterrupt
            for event in self.events:
                event.set()
        elif number == signal.SIGINT and time.monotonic() - self.first_s >= _PATIENCE_S:
            if self.count < _ENOUGH:
                with suppress(OSError):
                    os.write(2, _WARNING)  # print() may be what this signal has come into
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


_requests = _Requests()


def _is_ours(number: int) -> bool:
    return signal.getsignal(number) == _requests.take


@contextmanager
def signals_taken(*, to_the_end: bool = False) -> Iterator[None]:
    """Makes SIGTERM and SIGHUP act as Ctrl-C does, and lets a repeat not disturb what the first one has begun.

    The first raises KeyboardInterrupt, or sets the event of a `stop_requested` inside. What comes within three seconds
    is ignored, SIGTERM and SIGHUP later on too; a third signal that is a Ctrl-C after that ends the process at once. A
    SIGHUP that is ignored when this begins (`nohup`) stays so. Outside of the main thread nothing happens: signals are
    its own.

    Args:
        to_the_end: after a signal, go on so to the end of the process, so that a repeat does not change how it ends.
    """
    if threading.current_thread() is not threading.main_thread() or _is_ours(signal.SIGINT):
        yield
        return
    _requests.count = 0
    taken = [number for number in _SIGNALS if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _requests.take) for number in taken}
    try:
        yield
    finally:
        if to_the_end and _requests.count:
            atexit.register(_ignore, taken)  # Python takes its handlers away after that, and needs some time still
        else:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: some library's own


def _ignore(numbers: list[signal.Signals]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """Turns the first SIGINT, SIGTERM or SIGHUP into an event; see `signals_taken` for what follows."""
    event = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    with signals_taken():
        _requests.events.append(event)
        if _requests.count:
            event.set()
        try:
            yield event
        finally:
            _requests.events.remove(event)
