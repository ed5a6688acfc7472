"""Reads images as the frames of a video."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.runtime.errors import VideoError
from salema.runtime.files.image_file import decode_file
from salema.runtime.sources.frames import GAP_S, Frame, SilentReader
from salema.runtime.video.damage import Damage


class ImageReader(SilentReader):
    """A `Reader` of images. If one can't be read, the one before is shown for longer.

    `damage` counts the images that can't be read; `upright` turns photographs as their EXIF data say.

    Raises:
        VideoError: no image can be read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        name: str,
        rate: Fraction,
        damage: Damage | None = None,
        stop: threading.Event | None = None,
        *,
        upright: bool = True,
    ) -> None:
        self.name, self.rate, self._paths, self._upright = name, rate, paths, upright
        self._damage, self._stop = damage or Damage(name), stop or threading.Event()
        self.time_base = 1 / rate
        self.frame_count: int | None = len(paths)
        self._readable = self._read_all()
        first = next(self._readable, None)
        if first is None:
            others = f"; none of {len(paths)} images can be read" if len(paths) > 1 else ""
            raise VideoError(f"{self._damage.why or f'{name}: stopped before its first frame'}{others}")
        self.height, self.width = first[1].shape[:2]
        self._readable = itertools.chain([first], self._readable)

    def __iter__(self) -> Iterator[Frame]:
        gap = GAP_S * self.rate
        end, shape = 0, ()
        held: Frame | None = None  # until its length is known
        broken: VideoError | None = None
        try:
            for index, image in self._readable:
                if held is not None:
                    yield replace(held, duration=index - held.pts)
                held = Frame(image, index, 1, starts_anew=image.shape != shape or index > end + gap)
                end, shape = index + 1, image.shape
        except VideoError as error:
            broken = error
        if held is not None:
            is_cut_short = broken is not None or self._stop.is_set()
            yield held if is_cut_short else replace(held, duration=len(self._paths) - held.pts)
        if broken is not None:
            raise broken

    def _read_all(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for index, path in enumerate(self._paths):
            if self._stop.is_set():
                return
            try:
                image = read_image(path, upright=self._upright)
            except VideoError as error:
                self._damage.leave_out_image(float(index * self.time_base), error)
                continue
            yield index, image

    def close(self) -> None:
        """See `Reader`."""


def read_image(path: Path, *, upright: bool = False) -> NDArray[np.uint8]:
    """Reads an image as uint8 BGR `(h, w, 3)`; grey becomes BGR, and transparency is dropped.

    `upright` turns it as its EXIF data say, as viewers do. The published code does not.

    Raises:
        VideoError: the file is no image, damaged, too big, or no ordinary file.
    """
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return decode_file(path, flags, VideoError).astype(np.uint8, copy=False)
