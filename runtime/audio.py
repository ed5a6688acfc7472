"""A source's sound, carried into the output file just ahead of its pictures."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import av.error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from av.audio.stream import AudioStream
    from av.container import OutputContainer

_PLAYS_IN_BROWSERS = {"aac", "mp3", "opus", "flac"}
"""Codecs that browsers play from an MP4 file; these are copied as they are, others become AAC."""


class AudioTrack:
    """Copies the first audio stream of a file, if it has one.

    It reads the file a second time, at its own pace: so the decoder of the pictures needs to know nothing of sound.

    Args:
        source: the file that the pictures come from.
        output: where to; nothing may have been written to it.
    """

    def __init__(self, source: Path, output: OutputContainer) -> None:
        self._output = output
        self._input = av.open(str(source.absolute()))
        self._start_s = Fraction(self._input.start_time or 0, av.time_base)
        self._packets: Iterator[av.Packet[AudioStream]] = iter(())
        if self._input.streams.audio:
            stream = self._input.streams.audio[0]
            copied = stream.codec_context.name in _PLAYS_IN_BROWSERS
            self._packets = self._copied(stream) if copied else self._transcoded(stream)
        # A generator adds its stream on its first step, which must come before the file's header is written.
        self._next = next(self._packets, None)

    def write_until(self, time_s: float) -> None:
        """Writes the sound up to a time, in seconds from the start; infinity for all."""
        while self._next is not None and _time_s(self._next) <= time_s:
            self._output.mux(self._next)
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Closes the source."""
        self._input.close()

    def _copied(self, stream: AudioStream) -> Iterator[av.Packet[AudioStream]]:
        out = self._output.add_stream_from_template(stream)
        for packet in self._input.demux(stream):
            if packet.dts is None or packet.pts is None:  # the demuxer's flush packet
                continue
            start = round(self._start_s / packet.time_base)
            packet.pts, packet.dts = packet.pts - start, packet.dts - start
            packet.stream = out
            yield packet

    def _transcoded(self, stream: AudioStream) -> Iterator[av.Packet[AudioStream]]:
        out = self._output.add_stream("aac", rate=stream.codec_context.sample_rate)
        # By number: PCM has no layout that the encoder takes. What browsers don't play is folded to stereo.
        out.codec_context.layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        resampler = av.AudioResampler(
            format="fltp", layout=out.codec_context.layout, rate=out.codec_context.sample_rate
        )
        for packet in self._input.demux(stream):
            with suppress(av.error.InvalidDataError):  # a damaged packet costs its own sound, no more
                for frame in packet.decode():
                    if frame.pts is not None and frame.time_base:
                        frame.pts -= round(self._start_s / frame.time_base)
                    for resampled in resampler.resample(frame):
                        yield from out.encode(resampled)
        for resampled in resampler.resample(None):
            yield from out.encode(resampled)
        yield from out.encode(None)


def _time_s(packet: av.Packet[AudioStream]) -> float:
    return float((packet.dts or 0) * packet.time_base)
