"""Writes H.264 MP4 files through PyAV (FFmpeg's libraries)."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.error
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from salema.runtime.closing import Stacked
from salema.runtime.errors import OutputError, reason
from salema.runtime.files.disk_sync import sync_soon
from salema.runtime.files.whole_files import append, hold, translated, written_aside
from salema.runtime.sources.frames import Frame, Reader
from salema.runtime.video.audio import AudioTrack
from salema.runtime.video.mp4 import (
    FRAGMENTED,
    WITHOUT_WAITING,
    copy_for_players,
    count_pictures,
    cut_to_whole_fragments,
)

_BT709 = 1  # H.273's code for primaries, transfer and matrix alike
_MOST_COLUMNS = 16384  # x264's limit
_LIMITED_RANGE = 1  # FFmpeg's AVCOL_RANGE_MPEG
# No B-frames: with them MP4 players take a variable-rate file for shorter than it is (8.92 s of 9.64).
# So the encoder holds back four pictures, not dozens on many cores; the lookahead still saves bits (5 % of a clip).
_X264 = {"preset": "veryfast", "crf": "20", "bf": "0", "rc-lookahead": "3", "x264-params": "sliced-threads=1"}
_X264_LIVE = _X264 | {"tune": "zerolatency"}  # holds back no picture: a live frame may last a second
_LATE_S = 0.5  # sound that begins after this is late
# Without these flags FFmpeg's colours are up to 3 levels off.
_EXACT = 2 | 0x40000  # SWS_BILINEAR, SWS_ACCURATE_RND; PyAV 15 has no name for the latter


class VideoWriter(Stacked):
    """Writes an H.264 MP4 that browsers play, with the time stamps and the sound of its source.

    The file gets its name when the `with` block ends without an error; after an error nothing is left. Until then it
    is in fragments, so that the file of a killed process can be recovered.
    H.264's 4:2:0 colour needs even sizes: a picture of odd size gets one more row or column, a copy of the last one.

    `height` and `width` are those of the pictures; `sound_start_s` is the time in the source's sound at which they
    begin.

    Raises:
        OutputError: it can't be written.
    """

    def __init__(self, path: Path, source: Reader, height: int, width: int, sound_start_s: float = 0) -> None:
        self._path, self._sound_start_s = path, sound_start_s
        self._rate, self._time_base, self._aspect = source.rate, source.time_base, source.aspect
        self._sound, self._options = source.sound, _X264_LIVE if source.is_live else _X264
        self._has_begun = False
        self._durations = deque[int]()  # of the pictures that the encoder holds back
        if self._sound is not None:
            self._sound.has_listener = True  # set now, because a part's writer may be entered later
        if max(width, height) > _MOST_COLUMNS:
            raise OutputError(
                f"{path}: {width}x{height} pixels, and H.264 goes to {_MOST_COLUMNS} either way; give --view overlay or"
                " --no-video"
            )
        self._reformatter = VideoReformatter()  # a frame's own reformatter would start threads for each frame
        self._padding = ((0, height % 2), (0, width % 2), (0, 0))
        self._size_wh = (width, height)

    def _open(self, stack: ExitStack) -> None:
        self._held = stack.enter_context(ExitStack())  # left last, when the file has its name
        self._aside = stack.enter_context(written_aside(self._path, durable=True))
        stack.enter_context(self._translated())
        self._file = _GrowingFile(self._aside)
        stack.callback(self._file.close)
        self._container = av.open(self._file, "w", format="mp4", options=FRAGMENTED)
        stack.callback(self._container.close)
        self._stream = self._add_stream()
        self._audio = AudioTrack(self._sound, self._container, self._mux, self._sound_start_s)

    def write(self, image_bgr: NDArray[np.uint8], frame: Frame) -> None:
        """Encodes a picture uint8 `(height, width, 3)` at the time of `frame`, and the sound up to there."""
        if image_bgr.shape[1::-1] != self._size_wh:  # the source changed its size
            image_bgr = cast("NDArray[np.uint8]", cv2.resize(image_bgr, self._size_wh))
        padded = np.pad(image_bgr, self._padding, mode="edge")
        picture = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="bgr24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=_EXACT,
        )
        picture.pts, picture.duration, picture.time_base = frame.pts, frame.duration, self._time_base
        with self._translated():
            self._durations.append(frame.duration)
            self._mux(self._stream.encode(picture))
            self._audio.write_until(float((frame.pts + frame.duration) * self._time_base))

    @property
    def sound_problem(self) -> str | None:
        """What went wrong with the source's sound, in words, or None."""
        return self._audio.problem

    def finish(self, *, all_sound: bool) -> list[str]:
        """Ends the file, and copies it to one with its index in front; returns notes for the user.

        Args:
            all_sound: whether to write the rest of the sound; False if the pictures were cut short.

        Raises:
            OutputError: the file can't be written.
            VideoError: the file is finished, but the rest of the sound has a fault that should end the run.
        """
        with self._translated():
            self._mux(self._stream.encode(None))
            if all_sound:
                self._audio.write_until(float("inf"))
            self._container.close()
            self._file.close()
        notes = self._copy_for_players()
        if self._audio.failure is not None:
            raise self._audio.failure
        return notes

    def _copy_for_players(self) -> list[str]:
        copied = self._aside.with_suffix(".copy")
        try:
            copy_for_players(self._aside, copied)
            hold(self._held.enter_context(copied.open("rb+")))  # as that file is, whose name it takes
            copied.replace(self._aside)
        except (av.error.FFmpegError, OSError) as error:
            return [f"{self._path} plays, but stays in fragments: it can't be copied ({reason(error)})"]
        finally:
            copied.unlink(missing_ok=True)  # if all went well, it has been renamed
        return []

    def finish_on_full_disk(self) -> int:
        """Ends the file after a failed write, in fragments, with the frames that had room; returns how many.

        Raises:
            OutputError: there was room for no frame.
        """
        with suppress(av.error.FFmpegError, OSError):
            if self._file.tell():  # without room for the header FFmpeg crashes on packets after it
                self._mux(self._stream.encode(None))
        with suppress(av.error.FFmpegError, OSError):
            self._container.close()
        self._file.close()
        with self._translated():
            cut_to_whole_fragments(self._aside)
        frames = count_pictures(self._aside)
        if not frames:
            raise OutputError(f"{self._path}: can't be written, not even its first frame; make room")
        return frames

    def _mux(self, packets: Iterable[av.Packet[Any]]) -> None:
        for packet in packets:
            if not self._has_begun:
                self._has_begun = True
                if self._audio.next_s > _LATE_S and not self._audio.tells_late:
                    self._container.options.update(WITHOUT_WAITING)
            if packet.stream is self._stream:  # libx264 gives each picture the average length; the last one's matters
                packet.duration = self._durations.popleft()
            self._container.mux(packet)

    def _add_stream(self) -> av.VideoStream:
        rate: Fraction = self._rate
        try:
            stream = self._container.add_stream("libx264", rate=rate, options=self._options)
        except ValueError as error:
            raise OutputError(
                f"{self._path}: this PyAV has no libx264; install one that has: pip install av"
            ) from error
        (_, extra_rows), (_, extra_columns), _ = self._padding
        stream.width, stream.height = self._size_wh[0] + extra_columns, self._size_wh[1] + extra_rows
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = self._time_base
        context.sample_aspect_ratio = self._aspect
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        return stream

    def _translated(self) -> AbstractContextManager[None]:
        return translated(self._path, (av.error.FFmpegError, OSError))


class _GrowingFile:
    """A file that FFmpeg writes to. Each write is whole or not done, and reaches the disk soon."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, io.FileIO(path, "w")

    def write(self, data: bytes) -> int:
        """Writes all of the bytes, or none."""
        sync_soon(self._path)
        return append(self._file, data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Sets the position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Returns the position."""
        return self._file.tell()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
