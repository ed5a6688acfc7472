"""Decodes the pictures of a container, and skips damaged places."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.container import InputContainer
from av.stream import Stream

from salema.runtime.video.containers import Pipe, open_container
from salema.runtime.video.damage import Damage
from salema.runtime.video.deinterlace import deinterlaced
from salema.runtime.video.packets import demuxed, is_end

_HDR = {16: "PQ", 18: "HLG"}  # H.273's transfer characteristics
_MOST_FAULTS = 1000  # that are kept; `_tail` counts those near the end again


class Decoder:
    """Decodes the pictures of one stream; packets that can't be decoded are counted and left out.

    `start` is the stream's time that counts as zero, in its unit.

    Attributes:
        damaged_until_s: time of the last packet that was left out, in seconds from the start.
    """

    def __init__(
        self,
        target: str | Path | Pipe,
        container: InputContainer,
        film: av.VideoStream,
        start: int,
        damage: Damage,
        stop: threading.Event,
        *,
        deinterlace: bool = False,
    ) -> None:
        self._deinterlace = deinterlace
        self._path = target if isinstance(target, Path) else None
        self._container, self._film, self._start, self._damage = container, film, start, damage
        self._time_base = film.time_base or Fraction(1, 25)
        self._read: int | None = None  # time of the last packet
        self._given: int | None = None  # time of the last frame
        self._faults: deque[int] = deque(maxlen=_MOST_FAULTS)
        self._side: tuple[Stream, Callable[[av.Packet[Any]], None]] | None = None
        self._is_closed, self._stop = False, stop
        self.damaged_until_s = 0.0

    def tap(self, stream: Stream, put: Callable[[av.Packet[Any]], None]) -> None:
        """Passes the packets of another stream to `put` as they are read."""
        self._side = stream, put

    def close(self) -> None:
        """Ends the frames after the next packet."""
        self._is_closed = True

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yields frames from the container's position on.

        Raises:
            av.error.FFmpegError, OSError: the container can't be read any further.
            VideoError: see `Damage`.
        """
        return deinterlaced(self._frames(), self._time_base) if self._deinterlace else self._frames()

    def _frames(self) -> Iterator[av.VideoFrame]:
        streams: list[Stream] = [self._film, *([self._side[0]] if self._side else [])]
        for packet in demuxed(self._container, streams, self._damage):
            if packet.stream is self._film:
                yield from self._seen(self._decode(packet))
            elif self._side:
                self._side[1](packet)
            if self._is_closed or self._stop.is_set():
                return
        yield from self._tail()

    def _decode(self, packet: av.Packet[Any]) -> list[av.VideoFrame]:
        if packet.pts is not None and not packet.is_discard:
            self._read = self._latest(self._read, packet.pts)
        try:
            frames: list[av.VideoFrame] = packet.decode()
        except av.error.FFmpegError as error:
            is_at_the_end = packet.size == 0 and self._path is not None  # see _tail
            if not is_end(error) and not is_at_the_end:
                self._leave_out(packet, error)
                self._faults.append(packet.dts or 0)
            return []
        return frames

    def _leave_out(self, packet: av.Packet[Any], error: Exception) -> None:
        time_s = self._time_s(packet.pts)
        self.damaged_until_s = max(self.damaged_until_s, time_s or 0)
        self._damage.leave_out(time_s, error)

    def _seen(self, frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
        for frame in frames:
            if frame.pts is not None:
                self._given = self._latest(self._given, frame.pts)
            self._damage.interlaced += frame.interlaced_frame and not self._deinterlace
            self._damage.hdr = self._damage.hdr or _HDR.get(self._film.codec_context.color_trc)
            if frame.is_corrupt:
                self._damage.mend(self._time_s(frame.pts))
        return frames

    def _tail(self) -> Iterator[av.VideoFrame]:
        """Decodes the last pictures of a file again, one at a time, if they are missing.

        At the end each of FFmpeg's threads holds a picture; after a fault in one thread PyAV can't get the others'.
        """
        given, read = self._given, self._read
        if given is None or read is None or read <= given or self._path is None:
            return
        with open_container(self._path) as container:
            film = container.streams[self._film.index]
            assert isinstance(film, av.VideoStream)
            film.thread_type = "SLICE"
            container.seek(given, stream=film)
            for packet in demuxed(container, [film], Damage()):
                if self._is_closed or self._stop.is_set():
                    return
                if self._faults and packet.dts is not None:
                    self._damage.packets -= sum(dts >= packet.dts for dts in self._faults)  # these faults come again
                    self._faults.clear()
                try:
                    frames = packet.decode()
                except av.error.FFmpegError as error:
                    if not is_end(error):
                        self._leave_out(packet, error)
                    continue
                yield from self._seen([frame for frame in frames if frame.pts is not None and frame.pts > given])

    def _latest(self, before: int | None, pts: int) -> int:
        """Returns the later of two times; after a jump back of more than a second, the new time."""
        return pts if before is None or pts > before or (before - pts) * self._time_base > 1 else before

    def _time_s(self, pts: int | None) -> float | None:
        return None if pts is None else float((pts - self._start) * self._time_base)
