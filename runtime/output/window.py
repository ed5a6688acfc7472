"""A window that shows the pictures."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import cv2

from salema.runtime.errors import BackendError, reason
from salema.runtime.output.sink import Drawn, Sink

if TYPE_CHECKING:
    from salema.runtime.sources.playback import Playback

_ESCAPE, _Q = 27, ord("q")
_POLL_MS = 50
_TRIAL_S = 20


class WindowClosedError(Exception):
    """The user has closed the window, which ends the run; it is no failure."""


class WindowSink(Sink):
    """A `Sink` that shows pictures, those of files at their speed. Q, Escape or closing the window ends the run.

    Raises:
        BackendError: there is no display, or this OpenCV has no windows.
    """

    wants_picture = True
    path = None

    def __init__(self, playback: Playback, stop: threading.Event) -> None:
        if sys.platform == "linux" and not _has_display():
            raise BackendError("--show: there is no display that can be opened (see DISPLAY); run it on a desktop")
        self._title, self._playback, self._stop = f"salema: {playback.name}", playback, stop
        self._start_s = 0.0

    def _open(self, stack: ExitStack) -> None:
        try:
            cv2.namedWindow(self._title, cv2.WINDOW_NORMAL)
            cv2.resizeWindow(self._title, self._playback.width, self._playback.height)
        except cv2.error as error:  # opencv-python-headless
            raise BackendError(
                f"--show: this OpenCV has no windows ({reason(error)}); install: pip install opencv-python"
            ) from error
        stack.callback(self._close)
        self._start_s = time.monotonic()

    def _close(self) -> None:
        if self._is_open():
            cv2.destroyWindow(self._title)

    def write(self, drawn: Drawn) -> None:
        """Shows one picture, and waits until its time.

        Raises:
            WindowClosedError: the window has been closed.
        """
        assert drawn.pictures.image_bgr is not None
        cv2.imshow(self._title, drawn.pictures.image_bgr)
        due_s = self._start_s + float(drawn.frame.pts * self._playback.time_base)
        while True:
            left_ms = 0 if self._playback.is_live else round(1000 * (due_s - time.monotonic()))
            key = cv2.waitKey(max(1, min(_POLL_MS, left_ms))) & 0xFF
            if key in {_ESCAPE, _Q} or not self._is_open():
                raise WindowClosedError
            if left_ms <= _POLL_MS or self._stop.is_set():
                return

    def _is_open(self) -> bool:
        try:
            return bool(cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) > 0)
        except cv2.error:  # from Qt, once its last window is closed
            return False


def _has_display() -> bool:
    """Whether a window can be opened. Tried in another process, because OpenCV's Qt aborts where it fails."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    trial = "import cv2; cv2.namedWindow('trial'); cv2.destroyAllWindows()"
    try:
        ran = subprocess.run([sys.executable, "-c", trial], capture_output=True, check=False, timeout=_TRIAL_S)  # noqa: S603
    except subprocess.TimeoutExpired:  # the display's server does not answer, as over a lost ssh -X
        return False
    return ran.returncode >= 0
