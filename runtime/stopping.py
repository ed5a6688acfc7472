"""Signals that ask a command to end. The first one ends it in order; for some time, later ones are ignored."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_PATIENCE_S = 3.0  # `timeout`, shells and wrappers send a signal twice or more within a few milliseconds
_ENOUGH = 3
_WARNING = b"still finishing files; press Ctrl-C once more to end at once\n"


class _Stop(threading.Event):
    """An event that a signal handler can set while the main thread, which runs the handler, waits for the event.

    One thread can't take a plain event's lock twice: the handler would wait for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cond = threading.Condition(threading.RLock())  # Python 3.10 to 3.13 have it under this name


class _Requests:
    """Counts the signals, and holds the events to set."""

    def __init__(self) -> None:
        self.events: list[threading.Event] = []
        self.count, self.first_s = 0, 0.0

    def take(self, number: int, _frame: object) -> None:
        """Handles a signal. The first one asks for the end; of the later ones only Ctrl-C counts, after three seconds.

        Raises:
            KeyboardInterrupt: it is the first signal, and no `stop_requested` is open.
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
                    os.write(2, _WARNING)  # not print(): the signal may have interrupted one
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


_requests = _Requests()


def _is_ours(number: int) -> bool:
    return signal.getsignal(number) == _requests.take


@contextmanager
def signals_taken(*, to_the_end: bool = False) -> Iterator[None]:
    """Makes SIGTERM and SIGHUP act like Ctrl-C; a repeated signal does not disturb the end that the first one began.

    The first signal raises KeyboardInterrupt, or sets the event of a `stop_requested` inside. Signals within three
    seconds after it are ignored, and later SIGTERMs and SIGHUPs too. After three seconds, a Ctrl-C that is the third
    signal or a later one ends the process at once. A SIGHUP that is ignored when this begins (`nohup`) stays ignored.
    Outside the main thread this does nothing, because Python handles signals in the main thread only.

    Args:
        to_the_end: after a signal, keep this up to the end of the process, so that a repeat does not change its end.
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
            atexit.register(_ignore, taken)  # after that Python removes its handlers, and still needs some time
        else:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: a library set it in C


def obey_lost_signal() -> None:
    """Ends a command whose first signal was lost: Python drops exceptions of callbacks and finalisers.

    Raises:
        KeyboardInterrupt: there was such a signal.
    """
    if _requests.count and not _requests.events and _is_ours(signal.SIGINT):
        raise KeyboardInterrupt


def _ignore(numbers: list[signal.Signals]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """Yields an event that the first SIGINT, SIGTERM or SIGHUP sets; see `signals_taken` for later signals."""
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
