"""Opening files with FFmpeg, the same way for pictures and sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import av

if TYPE_CHECKING:
    from pathlib import Path

    from av.container import InputContainer

# PyAV 15 to 18 decode metadata as UTF-8, and raise where a tag is something else; 19 has no such option.
_TEXT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}  # noqa: PLR2004


def open_container(path: Path) -> InputContainer:
    """Opens a media file.

    An absolute path, and no patterns: "12:30.mp4" would be a protocol to FFmpeg, "%03d.png" other files.

    Raises:
        av.error.FFmpegError, OSError: it can't be read.
    """
    return cast("InputContainer", av.open(str(path.absolute()), options={"pattern_type": "none"}, **_TEXT))
