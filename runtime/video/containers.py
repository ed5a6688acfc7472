"""Opens files, URLs and pipes with FFmpeg, in the same way for pictures and sound."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, cast

import av
import av.stream
from av.container import InputContainer
from av.stream import Disposition, Stream

# PyAV 15 to 18 decode metadata as UTF-8, and raise if a tag is not UTF-8; PyAV 19 has no such option.
_TEXT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}  # noqa: PLR2004
_TIMEOUTS_S = (10.0, 5.0)  # to connect, and to read on
# By default FFmpeg tries UDP first for RTSP, and shows lost packets as grey. Cameras offer TCP too.
_URL_OPTIONS = {"rtsp_flags": "prefer_tcp"}
_MAY_JUMP = 0x200  # AVFMT_TS_DISCONT, of a format's flags


class Pipe(Protocol):
    """Bytes that can be read only once, in order."""

    def read(self, size: int, /) -> bytes:
        """Returns up to `size` bytes; no bytes at the end."""


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


def best_film(container: InputContainer) -> av.VideoStream | None:
    """Returns the stream of pictures that players choose: of those marked as default, if any, the largest.

    A playlist's variants are such streams, often with the smallest first. Cover art does not count. None if there is no
    stream that can be decoded.
    """
    films = [film for film in container.streams.video if not film.disposition & Disposition.attached_pic]
    return max((film for film in films if film.codec_context is not None), key=_worth, default=None)


def _worth(film: av.VideoStream) -> tuple[bool, int]:
    return bool(film.disposition & Disposition.default), film.codec_context.width * film.codec_context.height


def jump_of(container: InputContainer) -> Fraction:
    """Returns how many seconds time must go back to show that another recording begins, as in joined files.

    In formats whose time may jump (transport streams, MPEG programs, playlists) it is a tenth of a second, as FFmpeg's
    own program has it; elsewhere times that are wrong by less than a second are likelier.
    """
    return Fraction(1, 10) if container.format.flags & _MAY_JUMP else Fraction(1)


def leave_out_others(container: InputContainer, wanted: Sequence[Stream]) -> None:
    """Keeps a playlist's other variants from being downloaded; PyAV before 18 can't."""
    if hasattr(av.stream, "Discard"):
        for stream in container.streams:
            if stream not in wanted:
                stream.discard = av.stream.Discard.all
