"""A source's sound, packet by packet, with times that match the pictures of a playback."""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import av
import av.error
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.container import InputContainer

from salema.runtime.errors import reason
from salema.runtime.video.containers import open_container
from salema.runtime.video.damage import Damage
from salema.runtime.video.packets import begin_of, demuxed, end_of, shift

Packet: TypeAlias = "av.Packet[Any]"

_MOST_BYTES = 1 << 29  # of waiting packets: hours of ordinary sound
_NEAR_S = 10  # sound and pictures of one recording begin within this time


class SoundFormat:
    """The format of a stream's packets; it stays valid after the file is closed.

    Attributes:
        decoder: FFmpeg's decoder, or None if it does not know the codec.
        codec: the codec's name, or None.
        channels: how many channels there are; None until `AudioTrack` has read it.
    """

    def __init__(self, stream: AudioStream) -> None:
        self.decoder = cast("AudioCodecContext | None", stream.codec_context)
        self.codec = None if self.decoder is None else self.decoder.codec.canonical_name
        self.channels: int | None = None
        self._stream = stream
        self._trial: tuple[Any, AudioStream] | None = None

    def template(self) -> AudioStream:
        """Returns a stream as a template for a copy. The first call needs the open file, later calls do not.

        Raises:
            av.error.FFmpegError, ValueError: the parameters are damaged (FLAC's or Opus's, say), so MP4 refuses them.
        """
        if self._trial is None:
            container = av.open(io.BytesIO(), "w", format="mp4")
            template = container.add_stream_from_template(self._stream)
            container.start_encoding()  # MP4 must refuse it here: later that would end the pictures too
            container.close()  # PyAV 16 would end the file as it drops it, perhaps after dropping what it writes to
            self._trial = container, template
        return self._trial[1]


class Packets(Protocol):
    """Gives packets of sound, with the times of their file."""

    problem: str | None

    def enter(self, file_s: Fraction) -> None:
        """Goes to a time in the file, if the source can."""

    def next(self) -> Packet | None:
        """Returns the next packet; None if there is none, or none yet."""

    def close(self) -> None:
        """Ends the packets."""


class Tap:
    """The sound of a source that can be read only once; the decoder puts the packets here, where they wait."""

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
    """The sound of a file that is opened a second time, so that it is there when needed, however it is interleaved."""

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
    """The sound of one reader, with times that match its frames, also if the file's time jumps back.

    `start_s` is the file's time that counts as zero; `jump_s` how far it goes back where another recording begins;
    `damage` counts the packets that can't be decoded.
    """

    def __init__(
        self, form: SoundFormat, packets: Packets, start_s: Fraction, jump_s: Fraction, damage: Damage
    ) -> None:
        self.form, self.packets, self.damage, self.has_listener = form, packets, damage, False
        self._stretches, self._now = [(start_s, start_s)], 0
        self._last_s: Fraction | None = None
        self._held: Packet | None = None
        self._start_s, self._jump_s = start_s, jump_s

    def jump(self, file_s: Fraction, start_s: Fraction) -> None:
        """Notes that the pictures jumped back to the file's time `file_s`; from there on `start_s` counts as zero."""
        self._stretches.append((file_s, start_s))

    def enter(self, time_s: Fraction) -> None:
        """Begins with the packets at a time, or shortly before it."""
        if time_s > 0:
            self.packets.enter(self._start_s + time_s)

    def take(self) -> Packet | None:
        """Returns the next packet; None if there is none, or none yet."""
        packet = self._next() if self._held is None else self._held
        self._held = None
        if packet is None:
            return None
        begin_s = begin_of(packet)
        if self._last_s is not None and begin_s < self._last_s - self._jump_s:
            following = self._stretch_at(begin_s)
            if following is None:  # the pictures have not jumped yet
                self._held = packet
                return None
            self._now = following
        self._last_s = begin_s
        shift(packet, -self._stretches[self._now][1])
        return packet

    @property
    def problem(self) -> str | None:
        """Why the sound ended, or None."""
        if self._held is not None:
            at_s = float(begin_of(self._held))
            return f"the sound jumps back to {at_s:.1f} s where the pictures don't; the rest of it is left out"
        return self.packets.problem

    def _next(self) -> Packet | None:
        while (packet := self.packets.next()) is not None:
            packet.dts = packet.pts if packet.dts is None else packet.dts
            packet.pts = packet.dts if packet.pts is None else packet.pts
            if packet.dts is not None:  # the demuxer's last packet is empty
                return packet
        return None

    def _stretch_at(self, file_s: Fraction) -> int | None:
        """Returns the number of the next stretch whose pictures begin near a time in the file, or None."""
        coming = range(self._now + 1, len(self._stretches))
        return next((i for i in coming if abs(self._stretches[i][0] - file_s) < _NEAR_S), None)


@dataclass
class _Pass:
    track: Track
    base_s: Fraction
    offset_s: Fraction
    end_s: Fraction | None = None


class Sound:
    """The sound of a playback, over all its passes.

    Args:
        track: the sound of the first reader; the sound of later readers has the same format.

    Attributes:
        has_listener: whether anybody reads the sound.
    """

    def __init__(self, track: Track) -> None:
        self.form, self.damage, self.has_listener = track.form, track.damage, False
        self._passes: deque[_Pass] = deque()

    def begin(self, track: Track, base_s: Fraction, offset_s: Fraction) -> None:
        """Begins a pass: the reader's time `base_s` is the playback's time `offset_s`."""
        track.enter(base_s)
        self._passes.append(_Pass(track, base_s, offset_s))

    def end(self, at_s: Fraction) -> None:
        """Ends the pass at the reader's time `at_s`; another pass follows."""
        if self._passes:
            self._passes[-1].end_s = at_s

    def take(self) -> Packet | None:
        """Returns the next packet; None if there is none, or none yet."""
        while self._passes:
            now = self._passes[0]
            end_s = now.end_s  # read first: once it is set, all packets are there
            packet = now.track.take()
            while packet is not None and now.base_s and end_of(packet) <= now.base_s:
                packet = now.track.take()  # it lies between the place where the file was entered and the start
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
        """Why the sound ended before the pictures, or None."""
        return self._passes[0].track.problem if self._passes else None

    def close(self) -> None:
        """Ends the sound."""
        while self._passes:
            self._passes.popleft().track.packets.close()
