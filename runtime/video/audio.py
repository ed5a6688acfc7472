"""Writes a source's sound into the output file, just ahead of the pictures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, TypeAlias

import av
import av.error
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer

from salema.runtime.errors import VideoError, reason
from salema.runtime.video.damage import Damage
from salema.runtime.video.packets import is_end, shift
from salema.runtime.video.sound import Sound, Track
from salema.runtime.wording import counted

Packet: TypeAlias = "av.Packet[AudioStream]"  # PyAV's class takes no type at run time

_PLAYS_IN_BROWSERS = {"aac", "mp3", "opus", "flac"}
"""Codecs that browsers play from an MP4 file. They are copied; sound of other codecs is encoded as AAC."""

_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


class AudioTrack:
    """Writes a source's sound, if it has any.

    Sound that can't be read or written does not stop the pictures: the sound ends, or a part of it is left out, and
    `problem` says why.

    Nothing may have been written to `output` yet. `start_s` is the time in the sound at which its pictures begin.

    Attributes:
        problem: what went wrong, in words, or None.
        failure: the fault that should end the run, or None. At the very end of the sound it is not raised, so that the
            file can be finished.
    """

    failure: VideoError | None = None

    def __init__(
        self,
        sound: Sound | Track | None,
        output: OutputContainer,
        mux: Callable[[Iterable[av.Packet[Any]]], None],
        start_s: float = 0,
    ) -> None:
        self._sound, self._mux, self._start_s = sound, mux, Fraction(start_s)
        self._ready: deque[Packet] = deque()
        self._last_dts: int | None = None
        self._problem: str | None = None
        self._is_flushed = False
        self._convert: _Copying | _Transcoding | None = None
        if sound is not None:
            sound.has_listener = True
            self._convert = self._choose(sound, output)

    @property
    def problem(self) -> str | None:
        """See the class."""
        if self._sound is None:
            return None
        worst = self._problem or self._sound.problem
        if worst is not None:
            return worst
        damage = self._sound.damage
        if not damage.packets:
            return None
        at = "" if damage.first_s is None else f", the first at {damage.first_s:.1f} s"
        were = "was" if damage.packets == 1 else "were"
        return f"{counted(damage.packets, 'packet')} of the sound could not be read, and {were} left out{at}"

    @property
    def next_s(self) -> float:
        """When the next packet to write begins, in seconds from the start; infinity if there is none yet."""
        if self._convert is None or not (self._ready or self._fill(all_of_it=False)):
            return float("inf")
        return _time_s(self._ready[0])

    @property
    def tells_late(self) -> bool:
        """Whether the sound's parameters come with its packets, so that the file's header has to wait for them."""
        return isinstance(self._convert, _Copying) and self._convert.is_adts

    def write_until(self, time_s: float) -> None:
        """Writes the sound up to a time, in seconds from the start; infinity writes all.

        Raises:
            VideoError: the sound is damaged, and the first fault should end the run.
        """
        all_of_it = time_s == float("inf")
        try:
            while self._convert is not None and (self._ready or self._fill(all_of_it=all_of_it)):
                if _time_s(self._ready[0]) > time_s:
                    return
                self._write(self._ready.popleft())
        except VideoError as error:
            self._convert, self.failure = None, error
            if not all_of_it:
                raise

    def _fill(self, *, all_of_it: bool) -> bool:
        """Converts the next packets; returns whether any are ready to write."""
        assert self._sound is not None
        assert self._convert is not None
        try:
            while not self._ready and (packet := self._sound.take()) is not None:
                shift(packet, -self._start_s)
                self._ready.extend(self._convert(packet))
            if not self._ready and all_of_it and not self._is_flushed:
                self._is_flushed = True
                self._ready.extend(self._convert(None))
        except (av.error.FFmpegError, ValueError) as error:
            self._problem = f"the sound ends early: it can't be converted on ({reason(error)})"
            self._convert = None
        return bool(self._ready)

    def _write(self, packet: Packet) -> None:
        # MP4 has no place for packets whose time jumps back.
        if packet.dts is None or (self._last_dts is not None and packet.dts <= self._last_dts):
            return
        assert self._sound is not None
        self._last_dts, time_s = packet.dts, _time_s(packet)  # read before muxing, which changes the packet's units
        try:
            self._mux([packet])
        except av.error.InvalidDataError as error:  # the muxer reads some packets
            self._sound.damage.leave_out(time_s, error)

    def _choose(self, sound: Sound | Track, output: OutputContainer) -> _Copying | _Transcoding | None:
        decoder = sound.form.decoder
        if decoder is None:
            self._problem = "the sound is left out: its codec is not known"
            return None
        if sound.form.codec in _PLAYS_IN_BROWSERS:
            try:
                return _Copying(decoder, sound.form.template(), output, sound.damage)
            except (av.error.FFmpegError, ValueError) as error:
                self._problem = f"the sound is left out: it is damaged ({reason(error)})"
                return None
        if sound.form.channels is None:  # once: then the decoder is open, and the parts of a video share it
            sound.form.channels = _make_layout_native(decoder)
        channels = sound.form.channels
        if channels not in _LAYOUTS:
            self._problem = f"the sound is left out: it has {channels} channels, and more than 8 can't be folded to two"
            return None
        return _Transcoding(decoder, channels, output, sound.damage)


class _Copying:
    """Copies packets, and leaves out damaged ones: some browsers end a film at them."""

    def __init__(
        self, decoder: AudioCodecContext, template: AudioStream, output: OutputContainer, damage: Damage
    ) -> None:
        self._decoder, self._out, self._damage = decoder, output.add_stream_from_template(template), damage
        self.is_adts = decoder.name == "aac" and not decoder.extradata  # in MPEG-TS
        # FFmpeg adds this filter itself, but not for files in fragments.
        self._bare = BitStreamFilterContext("aac_adtstoasc", template) if self.is_adts else None
        self._is_decodable = False  # FFmpeg can't decode some rare kinds of a codec; those are copied unchecked

    def __call__(self, packet: Packet | None) -> list[Packet]:
        if packet is None:
            return []
        try:
            self._is_decodable = bool(self._decoder.decode(packet)) or self._is_decodable
        except av.error.FFmpegError as error:
            if self._is_decodable and not is_end(error):
                self._damage.leave_out(_time_s(packet), error)
                return []
        copied = [packet] if self._bare is None else self._bare.filter(packet)
        for one in copied:
            one.stream = self._out
        return copied


class _Transcoding:
    """Decodes packets, and encodes them as AAC."""

    def __init__(self, decoder: AudioCodecContext, channels: int, output: OutputContainer, damage: Damage) -> None:
        self._decoder, self._damage = decoder, damage
        rate = min(av.Codec("aac", "w").audio_rates or [44100], key=lambda known: abs(known - decoder.sample_rate))
        self._out = output.add_stream("aac", rate=rate)
        self._out.codec_context.layout = "mono" if channels == 1 else "stereo"  # browsers play these
        self._resampler = self._new_resampler()
        self._last: tuple[Any, ...] | None = None

    def _new_resampler(self) -> av.AudioResampler:
        context = self._out.codec_context
        return av.AudioResampler(format="fltp", layout=context.layout, rate=context.sample_rate)

    def __call__(self, packet: Packet | None) -> list[Packet]:
        return list(self._encoded(packet))

    def _encoded(self, packet: Packet | None) -> Iterator[Packet]:
        for frame in self._decode(packet):
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            if self._last not in {None, kind}:  # broadcasts change from stereo to surround and back
                yield from self._resampled(None)
                self._resampler = self._new_resampler()
            self._last = kind
            yield from self._resampled(_in_samples(frame))
        if packet is None:
            yield from self._resampled(None)
            yield from self._out.encode(None)

    def _decode(self, packet: Packet | None) -> list[av.AudioFrame]:
        try:
            return self._decoder.decode(packet)
        except av.error.FFmpegError as error:  # not InvalidDataError: AC-3's faults have another class
            if not is_end(error):
                self._damage.leave_out(None if packet is None else _time_s(packet), error)
            return []

    def _resampled(self, frame: av.AudioFrame | None) -> Iterator[Packet]:
        for resampled in self._resampler.resample(frame):
            yield from self._out.encode(resampled)


def _in_samples(frame: av.AudioFrame) -> av.AudioFrame:
    """Converts a frame's time to samples: in AVI's coarser unit two AAC packets would get the same time."""
    if frame.pts is not None and frame.time_base:
        frame.pts = round(frame.pts * frame.time_base * frame.sample_rate)
        frame.time_base = Fraction(1, frame.sample_rate)
    return frame


def _make_layout_native(context: AudioCodecContext) -> int:
    """Gives a decoder the usual layout for its number of channels; returns that number.

    PCM in MKV and MOV has a custom layout. PyAV 15 to 18 has two bugs with it: it returns the layout's memory without a
    copy and frees it with the object (so a second look frees it twice), and it overruns its buffer if asked for the
    name. So the layout is read once, and then replaced.
    """
    custom = context.layout
    channels: int = custom.nb_channels
    context.layout = _LAYOUTS.get(channels, "stereo")
    return channels


def _time_s(packet: Packet) -> float:
    return float((packet.dts or 0) * packet.time_base)
