"""A window that shows the picture as it comes."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import cv2

from salema.runtime.errors import BackendError, reason

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from salema.runtime.playback import Playback
    from salema.runtime.sinks import Drawn

_ESCAPE, _Q = 27, ord("q")


class WindowClosedError(Exception):
    """The user has closed the window; no error, but the end of the run."""


class WindowSink:
    """Shows pictures, those of files no faster than their times say. Q, Escape or closing it ends the run; a `Sink`.

    Raises:
        BackendError: there is no display, or this OpenCV has no windows.
    """

    wants_picture = True
    wants_raw = wants_cuts = False

    def __init__(self, source: Playback) -> None:
        # OpenCV's Qt ends the process where there is no display.
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise BackendError("--show: there is no display (DISPLAY is not set); leave it out, or run it on a desktop")
        self._title, self._source, self._start_s = f"salema: {source.name}", source, 0.0

    def __enter__(self) -> Self:
        try:
            cv2.namedWindow(self._title, cv2.WINDOW_NORMAL)
            cv2.resizeWindow(self._title, self._source.width, self._source.height)
        except cv2.error as error:  # opencv-python-headless
            raise BackendError(
                f"--show: this OpenCV has no windows ({reason(error)}); install: pip install opencv-python"
            ) from error
        self._start_s = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) > 0:
            cv2.destroyWindow(self._title)

    def write(self, drawn: Drawn) -> None:
        """Shows one picture, at its time.

        Raises:
            WindowClosedError: the window has been closed.
        """
        assert drawn.picture is not None
        cv2.imshow(self._title, drawn.picture)
        due_s = self._start_s + float(drawn.frame.pts * self._source.time_base)
        wait_ms = 1 if self._source.is_live else max(1, round(1000 * (due_s - time.monotonic())))
        key = cv2.waitKey(wait_ms) & 0xFF
        if key in {_ESCAPE, _Q} or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
            raise WindowClosedError

    def finish(self, *, complete: bool) -> list[str]:  # noqa: ARG002
        """See `Sink`."""
        return []
