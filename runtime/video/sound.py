"""A source's sound, packet by packet, at the times that its pictures have in a playback."""

from __future__ import annotations

import io
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import av
import av.error

from salema.runtime.errors import reason
from salema.runtime.video.containers import open_container
from salema.runtime.video.packets import begin_of, demuxed, end_of, shift

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction
    from pathlib import Path

    from av.audio.codeccontext import AudioCodecContext
    from av.audio.stream import AudioStream
    from av.container import InputContainer

    from salema.runtime.video.damage import Damage

    Packet = av.Packet[Any]

_MOST_BYTES = 1 << 29  # of packets that wait: hours of what people listen to
_JUMP_S = 1  # as for pictures
_NEAR_S = 10  # sound and pictures of one recording begin together, to within this


class _StaysOpen(io.BytesIO):
    """Memory that a container may still write to when Python's collector has taken all else."""

    def close(self) -> None:
        """Does nothing: PyAV 15 would complain when it ends the container."""


class SoundFormat:
    """What the packets of a stream are; it lasts longer than the file that they are read from.

    Attributes:
        decoder: FFmpeg's, or None where it does not know the codec.
        codec: the codec's name, or None.
        channels: how many it has, once somebody has found out.
    """

    def __init__(self, stream: AudioStream) -> None:
        self.decoder = cast("AudioCodecContext | None", stream.codec_context)
        self.codec = None if self.decoder is None else self.decoder.codec.canonical_name
        self.channels: int | None = None
        self._stream = stream
        self._trial: tuple[Any, AudioStream] | None = None

    def template(self) -> AudioStream:
        """Returns a stream to copy the packets by. Call it first while the file is open, and then at any time.

        Raises:
            av.error.FFmpegError, ValueError: the parameters are damaged (of FLAC or Opus, say), and no MP4 takes them.
        """
        if self._trial is None:
            container = av.open(_StaysOpen(), "w", format="mp4")
            template = container.add_stream_from_template(self._stream)
            container.start_encoding()  # what is refused later would cost the pictures
            self._trial = container, template
        return self._trial[1]


class Packets(Protocol):
    """Packets of sound in their file's own time."""

    problem: str | None

    def enter(self, file_s: Fraction) -> None:
        """Goes to a time where that can be done, and else does nothing."""
        ...

    def next(self) -> Packet | None:
        """Returns the next one; None where there is none, or none yet."""
        ...

    def close(self) -> None:
        """Gives no more."""
        ...


class Tap:
    """The sound of what can be read only once: its packets wait here, if anybody listens."""

    problem: str | None = None

    def __init__(self) -> None:
        self._waiting: deque[Packet] = deque()
        self._lock, self._bytes, self._is_closed = threading.Lock(), 0, False

    def put(self, packet: Packet) -> None:
        """Adds a packet."""
        with self._lock:
            if self._is_closed or self.problem is not None:
                return
            if self._bytes + packet.size > _MOST_BYTES:
                self.problem = "the sound ends early: too much of it came without pictures"
                return
            self._bytes += packet.size
            self._waiting.append(packet)

    def enter(self, file_s: Fraction) -> None:
        """See `Packets`."""

    def next(self) -> Packet | None:
        """See `Packets`."""
        with self._lock:
            if not self._waiting:
                return None
            packet = self._waiting.popleft()
            self._bytes -= packet.size
            return packet

    def close(self) -> None:
        """See `Packets`."""
        with self._lock:
            self._is_closed = True
            self._waiting.clear()


class SecondReading:
    """The sound of a file, opened once more: so it comes when it is wanted, however the file is interleaved."""

    problem: str | None = None

    def __init__(self, path: Path, damage: Damage) -> None:
        self._path, self._damage = path, damage
        self._container: InputContainer | None = None
        self._packets: Iterator[Packet] | None = None
        self._enter_s: Fraction | None = None

    def enter(self, file_s: Fraction) -> None:
        """See `Packets`."""
        self._enter_s = file_s

    def next(self) -> Packet | None:
        """See `Packets`."""
        try:
            if self._packets is None:
                self._packets = self._open()
            return next(self._packets, None)
        except (av.error.FFmpegError, ValueError) as error:
            self.problem = f"the sound ends early: it can't be read on ({reason(error)})"
            self._packets = iter(())
            return None

    def _open(self) -> Iterator[Packet]:
        self._container = open_container(self._path)
        if self._enter_s is not None:
            self._container.seek(int(self._enter_s * av.time_base))
        return demuxed(self._container, self._container.streams.audio[:1], self._damage)

    def close(self) -> None:
        """See `Packets`."""
        self._packets = iter(())
        if self._container is not None:
            self._container.close()


class Track:
    """The sound of one reader, with the times of its frames, also where the file's own time jumps back.

    Args:
        form: what the packets are.
        packets: where they come from.
        start_s: the file's time that is zero.
        damage: where it is counted what can't be decoded.
    """

    def __init__(self, form: SoundFormat, packets: Packets, start_s: Fraction, damage: Damage) -> None:
        self.form, self.packets, self.damage, self.has_listener = form, packets, damage, False
        self._stretches, self._now = [(start_s, start_s)], 0
        self._last_s: Fraction | None = None
        self._held: Packet | None = None
        self._start_s = start_s

    def jump(self, file_s: Fraction, start_s: Fraction) -> None:
        """Tells that the pictures jumped back: to a time in the file, with another time for zero from there on."""
        self._stretches.append((file_s, start_s))

    def enter(self, time_s: Fraction) -> None:
        """Begins with the packets at a time, or not long before it."""
        if time_s > 0:
            self.packets.enter(self._start_s + time_s)

    def take(self) -> Packet | None:
        """Returns the next packet; None where there is none, or none yet."""
        packet = self._next() if self._held is None else self._held
        self._held = None
        if packet is None:
            return None
        begin_s = begin_of(packet)
        if self._last_s is not None and begin_s < self._last_s - _JUMP_S:
            following = self._stretch_at(begin_s)
            if following is None:  # the pictures have not come so far
                self._held = packet
                return None
            self._now = following
        self._last_s = begin_s
        shift(packet, -self._stretches[self._now][1])
        return packet

    @property
    def problem(self) -> str | None:
        """Why it ended, or None."""
        if self._held is not None:
            at_s = float(begin_of(self._held))
            return f"the sound jumps back to {at_s:.1f} s where the pictures don't; the rest of it is left out"
        return self.packets.problem

    def _next(self) -> Packet | None:
        while (packet := self.packets.next()) is not None:
            packet.dts = packet.pts if packet.dts is None else packet.dts
            packet.pts = packet.dts if packet.pts is None else packet.pts
            if packet.dts is not None:  # the demuxer's last has nothing in it
                return packet
        return None

    def _stretch_at(self, file_s: Fraction) -> int | None:
        """The next stretch whose pictures begin near a time in the file."""
        coming = range(self._now + 1, len(self._stretches))
        return next((i for i in coming if abs(self._stretches[i][0] - file_s) < _NEAR_S), None)


@dataclass
class _Pass:
    track: Track
    base_s: Fraction
    offset_s: Fraction
    end_s: Fraction | None = None


class Sound:
    """The sound of a playback, over all of its passes.

    Args:
        track: the sound of its first reader; that of later ones is of the same form.

    Attributes:
        has_listener: whether anybody wants it.
    """

    def __init__(self, track: Track) -> None:
        self.form, self.damage, self.has_listener = track.form, track.damage, False
        self._passes: deque[_Pass] = deque()

    def begin(self, track: Track, base_s: Fraction, offset_s: Fraction) -> None:
        """Tells that a pass begins: a reader's time `base_s` is the playback's time `offset_s`."""
        track.enter(base_s)
        self._passes.append(_Pass(track, base_s, offset_s))

    def end(self, at_s: Fraction) -> None:
        """Tells that the pass has ended, and another follows."""
        if self._passes:
            self._passes[-1].end_s = at_s

    def take(self) -> Packet | None:
        """Returns the next packet; None where there is none, or none yet."""
        while self._passes:
            now = self._passes[0]
            end_s = now.end_s  # asked first: once it is known, all packets are there
            packet = now.track.take()
            while packet is not None and now.base_s and end_of(packet) <= now.base_s:
                packet = now.track.take()  # between the place that a file was entered at and the start
            if packet is not None:
                shift(packet, now.offset_s - now.base_s)
                if end_s is None or begin_of(packet) < end_s:
                    return packet
            if end_s is None:
                return None
            self._passes.popleft().track.packets.close()
        return None

    @property
    def problem(self) -> str | None:
        """Why it ended before the pictures, or None."""
        return self._passes[0].track.problem if self._passes else None

    def close(self) -> None:
        """Gives no more."""
        while self._passes:
            self._passes.popleft().track.packets.close()
