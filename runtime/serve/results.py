"""A frame's result, the forms in which it is sent, and the newest one of a stream."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.runtime.postprocess import Look, Normalise, render, to_levels

Form = Literal["jpeg", "png", "float16"]
FORMS: tuple[Form, ...] = get_args(Form)
"""The picture as JPEG; the map in levels as PNG; the raw map `(H, W)`, little-endian float16, row by row."""
MIME: Mapping[Form, str] = {"jpeg": "image/jpeg", "png": "image/png", "float16": "application/octet-stream"}
_JPEG_QUALITY = 85
_MOST_KEPT = 8  # encodings of one result


class Result:
    """A frame and its map. Those who want the same form share the encoding, while it is among the last few.

    Attributes:
        number: the frame's number in its stream, from 1.
        image_bgr: uint8 `(h, w, 3)`, the frame, no larger than pictures may be.
        saliency: float32 `(H, W)`, the raw map.
        limits: for each normalisation, the values of the raw map that become 0 and 255.
        starts_anew: whether the state was reset before it.
        latency_ms: from the frame's arrival to the map.
    """

    def __init__(
        self,
        number: int,
        image_bgr: NDArray[np.uint8],
        saliency: NDArray[np.float32],
        limits: Mapping[Normalise, tuple[np.float32, np.float32]],
        *,
        starts_anew: bool,
        latency_ms: float,
    ) -> None:
        self.number, self.image_bgr, self.saliency, self.limits = number, image_bgr, saliency, limits
        self.starts_anew, self.latency_ms = starts_anew, latency_ms
        self._encoding = threading.Lock()
        self._encoded: dict[tuple[Form, Look], bytes] = {}

    def encoded(self, form: Form, look: Look) -> bytes:
        """Returns the result in a form; blocks for some milliseconds."""
        key = (form, look)
        with self._encoding:
            if key not in self._encoded:
                if len(self._encoded) == _MOST_KEPT:
                    del self._encoded[next(iter(self._encoded))]
                self._encoded[key] = self._encode(form, look)
            return self._encoded[key]

    def _encode(self, form: Form, look: Look) -> bytes:
        if form == "float16":
            return self.saliency.astype("<f2").tobytes()
        levels = np.asarray(to_levels(self.saliency, self.limits[look.normalise]), np.uint8)
        if form == "png":
            return cv2.imencode(".png", levels)[1].tobytes()
        picture = render(self.image_bgr, levels, look)
        return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def made_smaller(image_bgr: NDArray[np.uint8], most_side: int) -> NDArray[np.uint8]:
    """Returns a frame `(h, w, 3)` whose longer side is `most_side` at most, for pictures."""
    height, width = image_bgr.shape[:2]
    share = most_side / max(height, width)
    if share >= 1:
        return image_bgr
    size_wh = (max(round(width * share), 1), max(round(height * share), 1))
    return np.asarray(cv2.resize(image_bgr, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True)
class Refusal:
    """A frame that could not be taken, and why."""

    number: int
    sentence: str


class Latest:
    """Keeps the newest `item`, if there is one. Those that nobody took in time are gone: nothing waits for the slow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.item: Result | Refusal | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._is_over = False

    def put(self, item: Result | Refusal) -> None:
        """Replaces the item, and wakes those who wait for it."""
        with self._lock:
            self.item = item
            self._wake()

    def end(self) -> None:
        """Says that no more items come."""
        with self._lock:
            self._is_over = True
            self._wake()

    async def after(self, number: int) -> Result | Refusal | None:
        """Waits for an item with a greater number, and returns the newest; None once no more come."""
        while True:
            with self._lock:
                if self.item is not None and self.item.number > number:
                    return self.item
                if self._is_over:
                    return None
                waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.add(waiting)
            try:
                await waiting
            finally:
                with self._lock:
                    self._waiting.discard(waiting)

    def _wake(self) -> None:
        for waiting in self._waiting:
            with suppress(RuntimeError):  # its loop is closed
                waiting.get_loop().call_soon_threadsafe(_resolve, waiting)
        self._waiting.clear()


def _resolve(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
