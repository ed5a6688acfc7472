"""Opens files, URLs and pipes with FFmpeg, in the same way for pictures and sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, cast

import av
from av.container import InputContainer

# PyAV 15 to 18 decode metadata as UTF-8, and raise if a tag is not UTF-8; PyAV 19 has no such option.
_TEXT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}  # noqa: PLR2004
_TIMEOUTS_S = (10.0, 5.0)  # to connect, and to read on
# By default FFmpeg tries UDP first for RTSP, and shows lost packets as grey. Cameras offer TCP too.
_URL_OPTIONS = {"rtsp_flags": "prefer_tcp"}


class Pipe(Protocol):
    """Bytes that can be read only once, in order."""

    def read(self, size: int, /) -> bytes:
        """Returns up to `size` bytes; no bytes at the end."""
        ...


def open_container(target: Path | str | Pipe) -> InputContainer:
    """Opens a media file (a path), a URL (text) or a pipe.

    A file is opened by its absolute path and without patterns: FFmpeg would take "12:30.mp4" for a protocol, and
    "%03d.png" for other files.

    Raises:
        av.error.FFmpegError, OSError: it can't be read.
    """
    if isinstance(target, Path):
        opened = av.open(str(target.absolute()), options={"pattern_type": "none"}, **_TEXT)
    elif isinstance(target, str):
        opened = av.open(target, options=_URL_OPTIONS, timeout=_TIMEOUTS_S, **_TEXT)
    else:
        opened = av.open(target, **_TEXT)
    return cast("InputContainer", opened)
