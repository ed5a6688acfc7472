"""Sessions that are left open to Python's end: they are closed before their devices, which close themselves then."""

from __future__ import annotations

import atexit
import weakref
from contextlib import suppress
from functools import cache

from salema.runtime.errors import BackendError
from salema.runtime.session import Session

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def close_at_exit(session: Session) -> None:
    """Has a session closed at Python's end if it is still open. Its device must be open by now."""
    _sessions.add(session)
    _register()


@cache
def _register() -> None:
    """The devices' own closing was registered when their module was imported; what was registered last comes first."""
    atexit.register(_close_all)


def _close_all() -> None:
    for session in list(_sessions):
        with suppress(BackendError):
            session.close()
