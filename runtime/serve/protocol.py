"""The messages of a WebSocket: what clients may send, checked, and how a result is packed."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from salema.runtime.cpu import usable_cores
from salema.runtime.errors import SalemaError, UsageError, VideoError
from salema.runtime.files.image_file import decode_image
from salema.runtime.files.image_size import JPEG_START, PNG_START, image_size_wh
from salema.runtime.postprocess import PUBLISHED, Look, Normalise, View
from salema.runtime.serve.limits import Limits
from salema.runtime.serve.results import Form, Result

_WEBP = b"RIFF"
_CHANNELS = 3
_MOST_TEXT = 4096  # bytes of a text message
_HEADER = struct.Struct("<I")
_LARGE_PIXELS = 1 << 21  # more than 1920x1080
# On half of the cores, so that clients with large frames leave the others for the network and for small ones.
_LARGE_AT_ONCE = threading.BoundedSemaphore(max(1, usable_cores() // 2))


@dataclass(frozen=True)
class Message:
    """A text message of a client.

    Attributes:
        type: `settings` changes what is given; `reset` empties the memory before the next frame; `next` asks for a
            source's newest result; `token` is the first message of a client that can't set headers.
        token: with `token`.
        form: with `settings`: `jpeg`, `png` or `float16`.
        view: with `settings`, as the following; see `salema.runtime.postprocess.Look`.
        normalise: see there.
        colormap: see there.
        opacity: see there.
        bgr_hw: with `settings`: height and width of the raw BGR frames that come next; without it, images come.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    type: Literal["settings", "reset", "next", "token"]
    token: str | None = None
    form: Form | None = None
    view: View | None = None
    normalise: Normalise | None = None
    colormap: str | None = None
    opacity: float | None = None
    bgr_hw: tuple[int, int] | None = None


_MESSAGES = TypeAdapter(Message)


@dataclass(frozen=True)
class Settings:
    """What a client sends, and wants.

    Attributes:
        form: how results are encoded.
        look: how they are drawn.
        bgr_hw: height and width of its raw BGR frames; None if it sends images.
    """

    form: Form = "jpeg"
    look: Look = PUBLISHED
    bgr_hw: tuple[int, int] | None = None

    def changed(self, message: Message, limits: Limits) -> Settings:
        """Returns the settings after a message of type `settings`.

        Raises:
            UsageError: a value is not possible.
        """
        look = Look(
            message.view or self.look.view,
            message.normalise or self.look.normalise,
            message.colormap or self.look.colormap,
            self.look.opacity if message.opacity is None else message.opacity,
        )
        bgr_hw = message.bgr_hw or self.bgr_hw
        if bgr_hw is not None:
            height, width = bgr_hw
            if min(bgr_hw) < 1 or height * width > limits.max_pixels:
                most = f"{limits.max_megapixels:g} megapixels are the most"
                raise UsageError(f"bgr_hw [{height}, {width}]: give a frame's height and width in pixels; {most}")
        return Settings(message.form or self.form, look, bgr_hw)


@dataclass(frozen=True)
class Upload:
    """A frame as a client sent it.

    Attributes:
        data: see `decoded`.
        limits: see `decoded`.
        settings: what the client wants.
    """

    data: bytes
    limits: Limits
    settings: Settings

    @property
    def is_large(self) -> bool:
        """Whether it says that it is large; a raw frame is not, as it needs no decoding."""
        return self.settings.bgr_hw is None and is_large(image_size_wh(self.data))

    def decoded(self) -> NDArray[np.uint8]:
        """See `decoded`."""
        return decoded(self.data, self.limits, self.settings.bgr_hw)

    def encode(self, result: Result) -> None:
        """Has the result keep its form for the client."""
        result.encoded(self.settings.form, self.settings.look)


def is_large(size_wh: tuple[int, int] | None) -> bool:
    """Whether a frame has more than two megapixels."""
    return size_wh is not None and size_wh[0] * size_wh[1] > _LARGE_PIXELS


def read_message(text: str) -> Message:
    """Reads a text message.

    Raises:
        UsageError: it is no message of this protocol.
    """
    if len(text) > _MOST_TEXT:
        raise UsageError(f"a text message of {len(text)} characters; {_MOST_TEXT} are the most")
    try:
        message: Message = _MESSAGES.validate_json(text)
    except ValidationError as error:
        raise UsageError(f"message: {first_fault(error.errors())}") from None
    return message


def first_fault(faults: Any) -> str:
    """Returns the first of pydantic's findings as part of a sentence; it shows no value that was given."""
    fault = faults[0]
    where = ".".join(str(part) for part in fault["loc"])
    what = str(fault["msg"])
    return f"{where}: {what}" if where else what


def decoded(data: bytes, limits: Limits, bgr_hw: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Returns a frame that a client sent, uint8 BGR `(h, w, 3)`.

    Args:
        data: a JPEG, PNG or WebP, or, with `bgr_hw`, raw bytes, row by row.
        limits: how large it may be.
        bgr_hw: height and width of a raw frame.

    Raises:
        VideoError: it is damaged, or of another size or kind.
    """
    if bgr_hw is not None:
        height, width = bgr_hw
        if len(data) != height * width * _CHANNELS:
            wanted = f"{height * width * _CHANNELS} bytes make a BGR frame of {height}x{width} (height x width)"
            raise VideoError(f"a raw frame of {len(data)} bytes; {wanted}")
        return np.frombuffer(data, np.uint8).reshape(height, width, _CHANNELS)
    if not data.startswith((JPEG_START, PNG_START, _WEBP)):
        raise VideoError("the frame is no image; send a JPEG, PNG or WebP, or say bgr_hw to a WebSocket for raw frames")
    width, height = size_wh = image_size_wh(data) or (0, 0)
    if width * height > limits.max_pixels:
        raise VideoError(f"the frame is {width}x{height}; {limits.max_megapixels:g} megapixels are the most")
    with _LARGE_AT_ONCE if is_large(size_wh) else nullcontext():
        image = decode_image(Path("the frame"), data, cv2.IMREAD_COLOR, VideoError)
    return np.asarray(image, np.uint8)


def packed(header: Mapping[str, object], payload: bytes) -> bytes:
    """Returns a binary message: the length of the header (uint32, little-endian), the header in JSON, the payload."""
    head = json.dumps(header).encode()
    return _HEADER.pack(len(head)) + head + payload


def unpacked(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Returns header and payload of a message that `packed` made, for clients in Python.

    Raises:
        SalemaError: it is no such message.
    """
    try:
        (size,) = _HEADER.unpack_from(message)
        header = json.loads(message[_HEADER.size : _HEADER.size + size])
    except (struct.error, ValueError) as error:
        raise SalemaError(f"not a message of salema-serve ({error})") from error
    return header, message[_HEADER.size + size :]
