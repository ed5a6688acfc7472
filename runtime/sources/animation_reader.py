"""Reads animated WebP through OpenCV, as FFmpeg decodes only still WebP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.runtime.errors import MissingDependencyError, VideoError
from salema.runtime.files.bounded_files import MOST_IMAGE_BYTES, read_file
from salema.runtime.files.image_file import check_pixels
from salema.runtime.files.image_size import image_size_wh
from salema.runtime.sources.frames import Frame, SilentReader

_HEADER_BYTES, _FLAGS_AT, _ANIMATED = 30, 20, 0x02  # of a RIFF file with the chunk VP8X first
_MOST_BYTES = 1 << 30  # OpenCV decodes all frames at once, to four bytes a pixel


def is_animated_webp(path: Path) -> bool:
    """Whether a file's header says animated WebP."""
    try:
        with path.open("rb") as file:
            return _says_animated(file.read(_HEADER_BYTES))
    except OSError:  # reported where it is opened
        return False


class AnimationReader(SilentReader):
    """A `Reader` of an animated WebP. Transparent pixels become black.

    Raises:
        VideoError: the file is damaged, or too big to be decoded at once.
        MissingDependencyError: this OpenCV can't read it.
    """

    time_base = Fraction(1, 1000)

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        data = read_file(path, MOST_IMAGE_BYTES, VideoError)
        canvas_wh = image_size_wh(data)
        if canvas_wh is None or not _says_animated(data[:_HEADER_BYTES]):
            raise VideoError(f"{path}: is no animated WebP any more")
        check_pixels(path, canvas_wh, VideoError)
        count = data.count(b"ANMF")
        if 4 * canvas_wh[0] * canvas_wh[1] * count > _MOST_BYTES:
            raise VideoError(
                f"{path}: is {canvas_wh[0]}x{canvas_wh[1]} with {count} frames, too much to decode at once; make a"
                " smaller one, or a video of it"
            )
        self._frames, self._durations_ms = _decode(path, data)
        self.frame_count: int | None = len(self._frames)
        self.height, self.width = self._frames[0].shape[:2]
        self.rate = Fraction(1000 * len(self._frames), sum(self._durations_ms)).limit_denominator(1001)

    def __iter__(self) -> Iterator[Frame]:
        pts = 0
        for index, (image, duration) in enumerate(zip(self._frames, self._durations_ms, strict=True)):
            yield Frame(image, pts, duration, starts_anew=index == 0)
            pts += duration

    def close(self) -> None:
        """See `Reader`."""
        self._frames = []


def _says_animated(header: bytes) -> bool:
    is_extended = len(header) == _HEADER_BYTES and header.startswith(b"RIFF") and header[8:16] == b"WEBPVP8X"
    return is_extended and bool(header[_FLAGS_AT] & _ANIMATED)


def _decode(path: Path, data: bytes) -> tuple[Sequence[NDArray[np.uint8]], list[int]]:
    """Returns the frames, uint8 BGR `(h, w, 3)`, and their lengths in milliseconds, at least 1."""
    if not hasattr(cv2, "imdecodeanimation"):
        raise MissingDependencyError(
            f"{path}: OpenCV {cv2.__version__} reads no animated WebP; install a newer one with: pip install -U"
            " opencv-python"
        )
    animation = None
    with suppress(cv2.error):
        _, animation = cv2.imdecodeanimation(np.frombuffer(data, np.uint8))
    if animation is None or not animation.frames:
        raise VideoError(f"{path}: can't be read as an animated WebP; copy it again, or make a new one")
    frames = [_opaque(np.asarray(frame, np.uint8)) for frame in animation.frames]
    durations = np.asarray(animation.durations).ravel().tolist()
    return frames, [max(int(duration), 1) for duration in durations]


def _opaque(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.shape[2] == 3:  # noqa: PLR2004 - channels
        return image
    covered = image[..., :3].astype(np.uint16) * image[..., 3:] // 255
    return covered.astype(np.uint8)
