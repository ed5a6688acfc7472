"""Reads the packets of a media file in order, and skips damaged places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import av.error
from av.container import InputContainer
from av.stream import Stream

from salema.runtime.video.damage import Damage

_MOST_IN_A_ROW = 100  # faults without a packet between them: after so many the demuxer makes no progress


def demuxed(container: InputContainer, streams: Sequence[Stream], damage: Damage) -> Iterator[av.Packet[Any]]:
    """Yields packets in the file's order; after a damaged place in the container it goes on.

    Raises:
        av.error.FFmpegError, OSError: the container can't be read any further.
        VideoError: see `Damage`.
    """
    in_a_row, packets = 0, container.demux(*streams)
    while True:
        try:
            packet = next(packets, None)
        except av.error.InvalidDataError as error:
            in_a_row += 1
            if in_a_row > _MOST_IN_A_ROW:
                raise
            damage.leave_out(None, error)
            packets = container.demux(*streams)
            continue
        if packet is None:
            return
        in_a_row = 0
        yield packet


def is_end(error: Exception) -> bool:
    """Whether a decoder's error is not a packet's fault: the stream ended, reading was stopped, or memory ran out."""
    return isinstance(error, EOFError | MemoryError | av.error.ExitError)


def shift(packet: av.Packet[Any], by_s: Fraction) -> None:
    """Moves a packet in time."""
    assert packet.pts is not None
    assert packet.dts is not None
    ticks = round(by_s / packet.time_base)
    packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks


def begin_of(packet: av.Packet[Any]) -> Fraction:
    """Returns when a packet begins, in seconds."""
    return (packet.dts or 0) * packet.time_base


def end_of(packet: av.Packet[Any]) -> Fraction:
    """Returns when a packet ends, in seconds."""
    return begin_of(packet) + (packet.duration or 0) * packet.time_base
