"""A source's sound, carried into the output file just ahead of its pictures."""

from __future__ import annotations

import io
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import av
import av.error

from salema.runtime.containers import open_container
from salema.runtime.errors import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from av.audio.codeccontext import AudioCodecContext
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer

_PLAYS_IN_BROWSERS = {"aac", "mp3", "opus", "flac"}
"""Codecs that browsers play from an MP4 file; these are copied as they are, others become AAC."""

_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


class AudioTrack:
    """Copies the first audio stream of a file, if it has one.

    It reads the file a second time, at its own pace: so the decoder of the pictures needs to know nothing of sound.
    Sound that can't be read never costs the pictures: it ends, and `problem` says why.

    Args:
        source: the file that the pictures come from, or None where there is no sound to be had.
        output: where to; nothing may have been written to it.
        mux: writes packets there.
        start_s: where in the file the pictures begin.
    """

    problem: str | None = None

    def __init__(
        self,
        source: Path | None,
        output: OutputContainer,
        mux: Callable[[Iterable[av.Packet[Any]]], None],
        start_s: float = 0,
    ) -> None:
        self._output, self._mux = output, mux
        self._packets: Iterator[av.Packet[AudioStream]] = iter(())
        self._last_dts: int | None = None
        self._is_entered = start_s > 0
        self._input = None if source is None else open_container(source)
        if self._input is not None and self._input.streams.audio:
            self._start_s = Fraction(self._input.start_time or 0, av.time_base) + Fraction(start_s)
            if self._is_entered:
                self._input.seek(int(self._start_s * av.time_base), stream=None)
            self._packets = self._choose(self._input, self._input.streams.audio[0])
        # A generator adds its stream on its first step, which must come before the file's header is written.
        self._next = self._advance()

    def write_until(self, time_s: float) -> None:
        """Writes the sound up to a time, in seconds from the start; infinity for all."""
        while self._next is not None and _time_s(self._next) <= time_s:
            self._mux([self._next])
            self._next = self._advance()

    def close(self) -> None:
        """Closes the source."""
        if self._input is not None:
            self._input.close()

    def _advance(self) -> av.Packet[AudioStream] | None:
        try:
            for packet in self._packets:
                # Where time jumps back, as in joined transport streams, MP4 has no place for what follows.
                if packet.dts is None or (self._last_dts is not None and packet.dts <= self._last_dts):
                    continue
                if self._is_entered and packet.dts + (packet.duration or 0) <= 0:
                    continue  # between the place that the file was entered at and the start; not an encoder's lead-in
                self._last_dts = packet.dts
                return packet
        except (av.error.FFmpegError, ValueError) as error:
            self.problem = f"the sound ends early: it can't be read on ({reason(error)})"
        return None

    def _choose(self, source: InputContainer, stream: AudioStream) -> Iterator[av.Packet[AudioStream]]:
        context = cast("AudioCodecContext | None", stream.codec_context)  # None where FFmpeg has no decoder
        if context is None:
            self.problem = "the sound is left out: its codec is not known"
            return iter(())
        if context.codec.canonical_name in _PLAYS_IN_BROWSERS:
            why = _refused_by_mp4(stream)
            if why is not None:  # found out later, it would cost the pictures
                self.problem = f"the sound is left out: it is damaged ({why})"
                return iter(())
            return self._copied(source, stream)
        channels = _make_layout_native(context)
        if channels not in _LAYOUTS:
            self.problem = f"the sound is left out: it has {channels} channels, and more than 8 can't be folded to two"
            return iter(())
        return self._transcoded(source, stream, channels)

    def _copied(self, source: InputContainer, stream: AudioStream) -> Iterator[av.Packet[AudioStream]]:
        out = self._output.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is None or packet.pts is None:  # the demuxer's flush packet
                continue
            start = round(self._start_s / packet.time_base)
            packet.pts, packet.dts = packet.pts - start, packet.dts - start
            packet.stream = out
            yield packet

    def _transcoded(
        self, source: InputContainer, stream: AudioStream, channels: int
    ) -> Iterator[av.Packet[AudioStream]]:
        context = stream.codec_context
        rate = min(av.Codec("aac", "w").audio_rates or [44100], key=lambda known: abs(known - context.sample_rate))
        out = self._output.add_stream("aac", rate=rate)
        out.codec_context.layout = "mono" if channels == 1 else "stereo"  # what browsers play
        resampler = av.AudioResampler(format="fltp", layout=out.codec_context.layout, rate=rate)
        for packet in source.demux(stream):
            with suppress(av.error.InvalidDataError):  # a damaged packet costs its own sound, no more
                for frame in packet.decode():
                    self._count_in_samples(frame)
                    for resampled in resampler.resample(frame):
                        yield from out.encode(resampled)
        for resampled in resampler.resample(None):
            yield from out.encode(resampled)
        yield from out.encode(None)

    def _count_in_samples(self, frame: av.AudioFrame) -> None:
        """Times a frame by samples from the start: AVI's coarser unit would give two AAC packets one time."""
        if frame.pts is not None and frame.time_base:
            frame.pts = round((frame.pts * frame.time_base - self._start_s) * frame.sample_rate)
            frame.time_base = Fraction(1, frame.sample_rate)


def _refused_by_mp4(stream: AudioStream) -> str | None:
    """Tries a header with this sound in memory: damaged parameters (of FLAC or Opus, say) are refused there."""
    try:
        with av.open(io.BytesIO(), "w", format="mp4") as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.error.FFmpegError, ValueError) as error:
        return reason(error)
    return None


def _make_layout_native(context: AudioCodecContext) -> int:
    """Gives a decoder the usual layout for its number of channels, which it returns.

    PCM in MKV and MOV has a custom one. PyAV 15 to 18 hands out its memory without a copy and frees it with the object
    (a double free on the second look), and overruns its buffer on the name: so it is looked at once, and replaced.
    """
    custom = context.layout
    channels: int = custom.nb_channels
    context.layout = _LAYOUTS.get(channels, "stereo")
    return channels


def _time_s(packet: av.Packet[AudioStream]) -> float:
    return float((packet.dts or 0) * packet.time_base)
