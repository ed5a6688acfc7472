"""How much one server takes, in all and from each client."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated

import typer

from salema.runtime.errors import UsageError

_MOST = 1_000_000


@dataclass(frozen=True)
class Limits:
    """How much one server takes. Every limit is above 0.

    Raises:
        UsageError: a limit is not.
    """

    max_mb: Annotated[float, typer.Option(metavar="MB", help="Most megabytes of one message or upload.")] = 16
    max_megapixels: Annotated[float, typer.Option(metavar="N", help="Most megapixels of one frame.")] = 16
    max_fps: Annotated[
        float,
        typer.Option(metavar="N", help="Frames a second of one client; of more, the newest waits."),
    ] = 30
    max_streams: Annotated[int, typer.Option(metavar="N", help="Clients that send frames, at a time.")] = 8
    max_viewers: Annotated[int, typer.Option(metavar="N", help="Clients that watch a source, at a time.")] = 32
    queue: Annotated[
        int, typer.Option(metavar="N", help="Frames of a client that may wait; of more, the oldest is dropped.")
    ] = 1
    idle_s: Annotated[float, typer.Option(metavar="S", help="Seconds after which a silent client is let go.")] = 60
    picture_side: Annotated[
        int, typer.Option(metavar="PIXELS", help="Longest side of a frame in a picture; larger ones are made smaller.")
    ] = 1280

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (0 < value <= _MOST and math.isfinite(value)):
                raise UsageError(f"--{field.name.replace('_', '-')} {value:g}: give a number above 0, {_MOST} at most")

    @property
    def max_bytes(self) -> int:
        """Most bytes of one message or upload."""
        return int(self.max_mb * 1_000_000)

    @property
    def max_pixels(self) -> int:
        """Most pixels of one frame."""
        return int(self.max_megapixels * 1_000_000)
