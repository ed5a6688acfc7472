"""MP4 files (ISO/IEC 14496-12) in fragments, which play however they end, and as players like them best."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import av
import av.error

from salema.runtime.video.containers import open_container

if TYPE_CHECKING:
    from pathlib import Path

FRAGMENTED: dict[str, str] = {
    # The index of sound that begins before zero (AAC's lead-in) needs to be known: so it comes with the first fragment.
    "movflags": "+delay_moov+default_base_moof+skip_trailer",
    "frag_duration": "500000",
    "max_interleave_delta": "500000",  # FFmpeg's own is ten seconds, for which it holds pictures back without sound
    "flush_packets": "1",
}
"""Options for a file that holds all but the last half second at any moment; microseconds."""
WITHOUT_WAITING: dict[str, str] = {
    "movflags": "+empty_moov+default_base_moof+skip_trailer",
    "avoid_negative_ts": "disabled",
}
"""What to change where sound begins late: the first fragment would wait for it."""
_LARGE = 1  # a size with another meaning: 64 bits follow


def cut_to_whole_fragments(path: Path) -> None:
    """Cuts off a fragment that is not there to its end.

    Raises:
        OSError: it can't be read or written.
    """
    with path.open("rb+") as file:
        size, start, whole = path.stat().st_size, 0, 0
        while start + 8 <= size:
            file.seek(start)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length == _LARGE:
                length = int.from_bytes(file.read(8), "big")
            if length < 8 or start + length > size:  # noqa: PLR2004 - also where a power cut left zeros
                break
            start += length
            whole = start if kind == b"mdat" else whole
        file.truncate(whole)


def copy_for_players(path: Path, target: Path) -> int:
    """Copies a file in fragments to one that has its index in front, as browsers like it; returns how many pictures.

    Raises:
        av.error.FFmpegError, OSError: it can't be read, or there is no room for a second file.
    """
    pictures = 0
    with (
        open_container(path) as source,
        av.open(str(target.absolute()), "w", format="mp4", options={"movflags": "+faststart"}) as output,
    ):
        streams: dict[int, Any] = {s.index: output.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is None:  # the demuxer's flush packet
                continue
            pictures += packet.stream.type == "video"
            packet.stream = streams[packet.stream.index]
            output.mux(packet)
    return pictures


def count_pictures(path: Path) -> int:
    """Counts the pictures in a file; 0 where it can't be read."""
    try:
        with open_container(path) as source:
            return sum(packet.dts is not None for packet in source.demux(video=0))
    except (av.error.FFmpegError, IndexError):
        return 0
