"""Reads bytes from standard input and from GStreamer."""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time

from salema.runtime.errors import MissingDependencyError, UsageError, reason

GST = "gst-launch-1.0"
# Matroska keeps the time stamps. It takes I420, YUY2 and BGR; videoconvert converts other formats.
TO_US = "videoconvert ! matroskamux streamable=true ! fdsink fd=1"
_POLL_S, _TERM_S = 0.1, 2.0
_FIRST_PATIENCE_S, _PATIENCE_S = 30.0, 10.0


class StdinPipe:
    """Standard input, read until its end or a stop."""

    failure: str | None = None

    def __init__(self, stop: threading.Event) -> None:
        """Opens standard input.

        Raises:
            UsageError: it is closed, or a terminal.
        """
        if sys.stdin is None:
            raise UsageError("-: standard input is closed; pipe a video into it, such as: salema-run - < video.mkv")
        if sys.stdin.isatty():
            raise UsageError("-: standard input is a terminal; pipe a video into it, such as: salema-run - < video.mkv")
        self._descriptor, self._stop = sys.stdin.fileno(), stop  # unbuffered: the buffer's lock would hang the exit

    def read(self, size: int, /) -> bytes:
        """See `Pipe`."""
        return _read(self._descriptor, size, self._stop)

    def close(self) -> None:
        """Leaves standard input open."""


class StdinFile(StdinPipe):
    """Standard input that is a file (`< video.mp4`): FFmpeg can seek in it, which many MP4 files need."""

    def seek(self, offset: int, whence: int, /) -> int:
        """Moves to an offset, and returns the position."""
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        """Returns the position."""
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)


def open_stdin(stop: threading.Event) -> StdinPipe:
    """Opens standard input as a file or as a pipe.

    Raises:
        UsageError: it is closed, or a terminal.
    """
    pipe = StdinPipe(stop)
    return StdinFile(stop) if stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode) else pipe


class GStreamerPipe:
    """The output of a GStreamer pipeline as Matroska, from a `gst-launch-1.0` process.

    OpenCV from PyPI has no GStreamer; the command-line tool comes with JetPack and every distribution.

    Args:
        pipeline: elements joined by ` ! `, up to raw video in main memory; an `appsink` at its end is left out.
        stop: once set, ends the bytes.
        is_live: whether the source counts as lost if it gives nothing for 10 seconds (30 at first).

    Raises:
        UsageError: the pipeline's quotes are not closed.
        MissingDependencyError: `gst-launch-1.0` is not installed.

    Attributes:
        failure: GStreamer's error message, or None.
    """

    failure: str | None = None

    def __init__(self, pipeline: str, stop: threading.Event, *, is_live: bool) -> None:
        words = _words(pipeline)
        program = shutil.which(GST)
        if program is None:
            raise MissingDependencyError(f"{GST} is not installed; install it with: apt install gstreamer1.0-tools")
        self._stop, self._errors = stop, tempfile.TemporaryFile()  # noqa: SIM115 - close() does
        self._process = subprocess.Popen(  # noqa: S603 - the user's own pipeline; there is no shell
            [program, "-q", *words, "!", *TO_US.split()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        assert self._process.stdout is not None
        self._descriptor = self._process.stdout.fileno()
        self._patience_s = _FIRST_PATIENCE_S if is_live else None

    def read(self, size: int, /) -> bytes:
        """See `Pipe`."""
        try:
            data = _read(self._descriptor, size, self._stop, self._patience_s)
        except TimeoutError:
            self.failure = f"gave nothing for {self._patience_s:g} s"
            return b""
        self._patience_s = self._patience_s and _PATIENCE_S
        if not data and not self._stop.is_set() and self._ended_with_an_error():
            self.failure = self._error_message()  # not raised, because PyAV prints what is raised here
        return data

    def _ended_with_an_error(self) -> bool:
        try:
            return self._process.wait(_TERM_S) != 0
        except subprocess.TimeoutExpired:  # it closed its output and hangs; close() ends it
            return False

    def _error_message(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith(("ERROR", "WARNING: erroneous"))] or lines
        return errors[0].partition(": ")[2] if errors else "it ended with an error, without a message"

    def close(self) -> None:
        """Ends GStreamer."""
        self._process.terminate()
        try:
            self._process.wait(_TERM_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()


def _words(pipeline: str) -> list[str]:
    """Splits a pipeline as a shell would, without an `appsink` at its end."""
    try:
        words = shlex.split(re.sub(r"(?<=\s)!(?=\S)", "! ", pipeline))
    except ValueError as error:
        raise UsageError(f"GStreamer: this pipeline can't be read ({reason(error)})") from error
    last = max((index for index, word in enumerate(words) if word == "!"), default=-1)
    is_sink = words[last + 1 :] and words[last + 1].startswith("appsink")
    return words[: max(last, 0)] if is_sink else words


def _read(descriptor: int, size: int, stop: threading.Event, patience_s: float | None = None) -> bytes:
    """Reads up to `size` bytes as soon as any come; returns none at the end, or after a stop.

    Raises:
        TimeoutError: none came within `patience_s`.
    """
    since = time.monotonic()
    while not stop.is_set():
        if patience_s is not None and time.monotonic() - since > patience_s:
            raise TimeoutError
        if os.name == "nt" or select.select([descriptor], [], [], _POLL_S)[0]:
            return os.read(descriptor, size)
    return b""
