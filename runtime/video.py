"""Video files in and out, through PyAV (FFmpeg's libraries)."""

from __future__ import annotations

import itertools
import re
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import av
import av.error
import cv2
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace

from salema.runtime.audio import AudioTrack
from salema.runtime.containers import open_container
from salema.runtime.errors import OutputError, VideoError, reason
from salema.runtime.files import written_aside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from av.container import InputContainer
    from numpy.typing import NDArray
    from typing_extensions import Self

_BT709 = 1  # H.273's code for primaries, transfer and matrix alike
_LIMITED_RANGE = 1  # FFmpeg's AVCOL_RANGE_MPEG
_AS_IT_IS = np.eye(2, dtype=np.int32)
# Headers are off by a frame or two in healthy files (AVI, fragmented MP4); a cut-off file lacks more than this.
_MISSING_FRAMES, _MISSING_SHARE = 3, 0.02
# B-frames make MP4 players take a variable-rate file for shorter than it is (8.92 s of 9.64), so there are none.
_X264 = {"preset": "veryfast", "crf": "20", "bf": "0"}


@dataclass(frozen=True)
class Frame:
    """One upright frame: uint8 BGR `(h, w, 3)`, and its time stamp and duration in units of the reader's time base."""

    image_bgr: NDArray[np.uint8]
    pts: int
    duration: int


class VideoReader:
    """Decodes a video file frame by frame, upright, and never holds more than a frame.

    Attributes:
        path: the file.
        height: rows of an upright frame.
        width: columns of an upright frame.
        rate: frames per second, on average.
        time_base: seconds per unit of a frame's time stamp.
        aspect: width of a shown pixel of an upright frame over its height.
        frame_count: what the file says it holds, or None where it does not say.

    Raises:
        VideoError: the file is missing, not a video, or holds no frame that can be decoded.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise VideoError(f"{self.path}: no such video file")
        try:
            self._container = open_container(self.path)
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(f"{self.path}: can't be read as a video ({reason(error)})") from error
        films = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        if not films or films[0].codec_context is None:
            self._container.close()
            raise VideoError(f"{self.path}: holds no video stream that can be decoded (cover art does not count)")
        stream = films[0]
        stream.thread_type = "AUTO"
        self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.time_base = stream.time_base or 1 / self.rate
        self.frame_count = stream.frames or None
        self._start = round(Fraction(self._container.start_time or 0, av.time_base) / self.time_base)
        self._declared_s = _declared_s(self._container, stream)
        self._decoded = self._container.decode(stream)
        first = self._decode_first()
        self._matrix = _display_matrix(first)  # in some files on the first frame only
        self.height, self.width = _upright(first, self._matrix).shape[:2]
        aspect = stream.sample_aspect_ratio or Fraction(1)
        self.aspect = 1 / aspect if _is_turned(self._matrix) else aspect
        self._decoded = itertools.chain([first], self._decoded)

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames, once, with time stamps that start near zero and always grow.

        Raises:
            VideoError: the file breaks off, or ends well before it says; the frames before were yielded.
        """
        usual = max(round(1 / (self.rate * self.time_base)), 1)
        jump = round(1 / self.time_base)  # one second back: another recording begins, as in joined transport streams
        count, start, earliest, end = 0, self._start, 0, 0
        try:
            for decoded in self._decoded:
                pts = end if decoded.pts is None else decoded.pts - start
                if pts < earliest - jump:
                    start, pts = start + pts - end, end
                pts = max(pts, earliest)
                duration = decoded.duration or usual
                yield Frame(_upright(decoded, self._matrix), pts, duration)
                count += 1
                earliest, end = pts + 1, pts + duration
        except av.error.FFmpegError as error:
            raise VideoError(f"{self.path}: breaks off after {count} frames ({reason(error)})") from error
        self._check_end(count, end, usual)

    def _check_end(self, count: int, end: int, usual: int) -> None:
        """FFmpeg ends a file that was cut off as if it were whole; what the header declares tells the two apart."""
        declared_s, end_s = self._declared_s, float(end * self.time_base)
        if declared_s is None or (self.frame_count is not None and count >= self.frame_count):
            return
        if declared_s - end_s > max(float(_MISSING_FRAMES * usual * self.time_base), _MISSING_SHARE * declared_s):
            raise VideoError(
                f"{self.path}: ends after {count} frames, at {end_s:.1f} s of the {declared_s:.1f} s that it declares;"
                " it is probably cut off"
            )

    def _decode_first(self) -> av.VideoFrame:
        why = "the stream is empty"
        try:
            first = next(self._decoded, None)
        except av.error.FFmpegError as error:
            first, why = None, reason(error)
        if first is None:
            self._container.close()
            raise VideoError(f"{self.path}: holds no frame that can be decoded ({why})")
        return first

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class VideoWriter:
    """Writes an H.264 MP4 that browsers play, with the time stamps and the sound of its source.

    The file appears under its name when the `with` block ends well; after an error nothing is left.
    H.264's 4:2:0 colour needs even sizes: an odd one gets one more row or column, a copy of its neighbour.

    Args:
        path: the file to write.
        source: the open reader that the pictures come from.
        height: rows of the pictures.
        width: columns of the pictures.

    Raises:
        OutputError: it can't be written.
    """

    def __init__(self, path: Path, source: VideoReader, height: int, width: int) -> None:
        self._path = path
        self._source = source
        self._padding = ((0, height % 2), (0, width % 2), (0, 0))
        self._size_wh = (width, height)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            aside = stack.enter_context(written_aside(self._path))
            stack.enter_context(self._translated())
            self._container = av.open(str(aside.absolute()), "w", format="mp4", options={"movflags": "+faststart"})
            stack.callback(self._container.close)
            self._stream = self._add_stream()
            self._audio = AudioTrack(self._source.path, self._container)
            stack.callback(self._audio.close)
            self._exit = stack.pop_all()
        return self

    def write(self, image_bgr: NDArray[np.uint8], frame: Frame) -> None:
        """Encodes a picture uint8 `(height, width, 3)` at the time of `frame`, and the sound up to there."""
        if image_bgr.shape[1::-1] != self._size_wh:  # the source changed its size on the way
            image_bgr = cast("NDArray[np.uint8]", cv2.resize(image_bgr, self._size_wh))
        padded = np.pad(image_bgr, self._padding, mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="bgr24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        picture.pts, picture.duration, picture.time_base = frame.pts, frame.duration, self._source.time_base
        with self._translated():
            self._container.mux(self._stream.encode(picture))
            self._audio.write_until(float((frame.pts + frame.duration) * self._source.time_base))

    @property
    def sound_problem(self) -> str | None:
        """What went wrong with the source's sound, in words, or None."""
        return self._audio.problem

    def finish(self, *, all_sound: bool) -> None:
        """Writes what the encoder still holds, and the rest of the sound unless the pictures were cut short."""
        with self._translated():
            self._container.mux(self._stream.encode(None))
            if all_sound:
                self._audio.write_until(float("inf"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.__exit__(kind, error, trace)

    def _add_stream(self) -> av.VideoStream:
        try:
            stream = self._container.add_stream("libx264", rate=self._source.rate, options=_X264)
        except ValueError as error:
            raise OutputError(
                f"{self._path}: this PyAV has no libx264; install one that has: pip install av"
            ) from error
        (_, extra_rows), (_, extra_columns), _ = self._padding
        stream.width, stream.height = self._size_wh[0] + extra_columns, self._size_wh[1] + extra_rows
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = self._source.time_base
        context.sample_aspect_ratio = self._source.aspect
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        return stream

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except av.error.FFmpegError as error:
            raise OutputError(
                f"{self._path}: can't be written ({reason(error)}); make room or choose another place"
            ) from error


def _declared_s(container: InputContainer, stream: av.VideoStream) -> float | None:
    """Seconds of pictures that a file declares, or None; Matroska tells their end, in a tag `00:00:04.004000000`."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    start_s = (container.start_time or 0) / av.time_base
    if tag:
        return 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3]) - start_s
    alone = len(container.streams) == 1
    return container.duration / av.time_base - start_s if alone and container.duration is not None else None


def _display_matrix(decoded: av.VideoFrame) -> NDArray[np.int32]:
    """Returns `[[a, b], [c, d]]`: a decoded point (x, y) is shown at (ax + cy, bx + dy), y downwards."""
    data: Any = decoded.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _AS_IT_IS
    matrix = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]
    return matrix if matrix.any() else _AS_IT_IS


def _is_turned(matrix: NDArray[np.int32]) -> bool:
    along, across = np.abs(np.diag(matrix).astype(float)).sum(), np.abs(np.diag(matrix[::-1]).astype(float)).sum()
    return bool(across > along)


def _upright(decoded: av.VideoFrame, matrix: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Turns and mirrors a decoded frame as its display matrix asks, to the nearest quarter turn."""
    # Bicubic where colour planes are resized, as OpenCV does it: PyAV's own choice is up to 125 off in 10-bit video.
    image = cast("NDArray[np.uint8]", decoded.to_ndarray(format="bgr24", interpolation="BICUBIC"))
    turned = _is_turned(matrix)
    (a, b), (c, d) = matrix.tolist()
    shown_x, shown_y = (c, b) if turned else (a, d)
    if turned:
        image = image.transpose(1, 0, 2)
    return np.ascontiguousarray(image[:: -1 if shown_y < 0 else 1, :: -1 if shown_x < 0 else 1])
