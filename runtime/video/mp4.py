"""MP4 files (ISO/IEC 14496-12): in fragments, which play wherever they are cut off, and with the index in front."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import av.error

from salema.runtime.video.containers import open_container

FRAGMENTED: dict[str, str] = {
    # The index must know sound that begins before zero (AAC's lead-in), so it is written with the first fragment.
    "movflags": "+delay_moov+default_base_moof+skip_trailer",
    "frag_duration": "500000",
    "max_interleave_delta": "500000",  # by default FFmpeg holds pictures back for ten seconds if no sound comes
    "flush_packets": "1",
}
"""Options for a file that always holds everything but the last half second; times are in microseconds."""
WITHOUT_WAITING: dict[str, str] = {
    "movflags": "+empty_moov+default_base_moof+skip_trailer",
    "avoid_negative_ts": "disabled",
}
"""Options that change if the sound begins late, because the first fragment would wait for the sound."""
_LARGE = 1  # this size means that the real size follows, in 64 bits


def cut_to_whole_fragments(path: Path) -> None:
    """Cuts off the last fragment if it is incomplete.

    Raises:
        OSError: the file can't be read or written.
    """
    with path.open("rb+") as file:
        size, start, whole = path.stat().st_size, 0, 0
        while start + 8 <= size:
            file.seek(start)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length == _LARGE:
                length = int.from_bytes(file.read(8), "big")
            if length < 8 or start + length > size:  # noqa: PLR2004 - a power cut can leave zeros
                break
            start += length
            whole = start if kind == b"mdat" else whole
        file.truncate(whole)


def copy_for_players(path: Path, target: Path) -> int:
    """Copies a file in fragments to one with its index in front, as browsers need it; returns the number of pictures.

    Raises:
        av.error.FFmpegError, OSError: the file can't be read, or there is no room for a second one.
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
    """Returns how many pictures a file holds; 0 if it can't be read."""
    try:
        with open_container(path) as source:
            return sum(packet.dts is not None for packet in source.demux(video=0))
    except (av.error.FFmpegError, IndexError):
        return 0
