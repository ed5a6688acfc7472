"""Reads video files, streams and pipes through PyAV (FFmpeg's libraries)."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer

from salema.runtime.closing import Closing
from salema.runtime.errors import VideoError, reason
from salema.runtime.sources.frames import GAP_S, Frame
from salema.runtime.video.containers import Pipe, best_film, jump_of, leave_out_others, open_container
from salema.runtime.video.damage import Damage
from salema.runtime.video.decoder import Decoder
from salema.runtime.video.sound import SecondReading, SoundFormat, Tap, Track
from salema.runtime.video.upright import Upright, display_matrix, is_turned
from salema.runtime.wording import counted

# The headers of healthy files (AVI, fragmented MP4) are wrong by a frame or two; a cut-off file lacks more than this.
_MISSING_FRAMES, _MISSING_SHARE = 3, 0.02
_UNTIMED = "mpjpeg"  # its pictures have no times, so FFmpeg takes it for 25 a second
LIVE_SCHEMES = {
    *("rtsp", "rtsps", "rtmp", "rtmps", "rtmpt", "rtmpe", "rtmpte"),
    *("rtp", "srtp", "srt", "rist", "udp", "mms"),
}
_PLAYLISTS = {"hls", "dash"}
_LIVE_FORMATS = {*_PLAYLISTS, _UNTIMED}  # a playlist has a length as soon as it has an end
_SEEK_FROM_S = 5.0  # decoding less than this is quick


class VideoReader(Closing):
    """Decodes a video frame by frame, upright, and never holds more than a frame; a `Reader`.

    Args:
        target: a file (`Path`), a URL (`str`) or a pipe.
        name: its name in messages; None takes the target itself.
        start_s: where to begin, in seconds. A file is decoded from the key frame before that, and yields its frames
            from there.
        damage: counts the packets that can't be decoded.
        sound_damage: counts the packets of sound that can't be decoded.
        is_live: whether a URL without a length comes at its own pace and has no end; for some protocols that is known.
        deinterlace: whether to make interlaced pictures whole.
        stop: ends the frames once it is set, also while none can be decoded.

    Attributes:
        sound: the sound, with the frames' times; None if there is none, and for live sources.

    Raises:
        VideoError: the target is missing, not a video, or holds no frame that can be decoded.
    """

    def __init__(
        self,
        target: str | Path | Pipe,
        name: str | None = None,
        start_s: float = 0,
        damage: Damage | None = None,
        sound_damage: Damage | None = None,
        *,
        is_live: bool = False,
        deinterlace: bool = False,
        stop: threading.Event | None = None,
    ) -> None:
        self.name = str(target) if name is None else name
        self._reading, self._closed = threading.Lock(), False
        self._damage = damage or Damage(self.name)
        self._container = self._open(target)
        stream = self._choose_stream()
        self._read_header(target, stream, is_live=is_live)
        self._stop = stop or threading.Event()
        self._decoder = Decoder(
            target, self._container, stream, self._start, self._damage, self._stop, deinterlace=deinterlace
        )
        self.sound = self._find_sound(target, stream, sound_damage or Damage(self.name))
        self._decoded = self._decoder.frames()
        first = self._decode_first()
        self._upright = Upright()
        self._matrix = display_matrix(first)  # some files have it on the first frame only
        self.height, self.width = self._upright(first, self._matrix).shape[:2]
        aspect = stream.sample_aspect_ratio or Fraction(1)
        self.aspect = 1 / aspect if is_turned(self._matrix) else aspect
        self._decoded = itertools.chain([first], self._decoded)
        if start_s > _SEEK_FROM_S and isinstance(target, Path) and first.pts is not None:
            self._seek(start_s)

    def _open(self, target: str | Path | Pipe) -> InputContainer:
        if isinstance(target, Path) and not target.is_file():
            raise VideoError(f"{self.name}: no such video file")
        try:
            return open_container(target)
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(f"{self.name}: can't be read as a video ({_reason(error)})") from error

    def _read_header(self, target: str | Path | Pipe, stream: av.VideoStream, *, is_live: bool) -> None:
        """Reads what the container says of times and lengths, and whether the source is live."""
        self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.time_base = stream.time_base or 1 / self.rate
        self.frame_count = stream.frames or None
        has_length = self._container.duration is not None or self._container.size > 0  # web servers give the size
        self.is_live = isinstance(target, str) and not has_length and (is_live or _is_live(target, self._container))
        self._may_be_live = isinstance(target, str) and not has_length and not self.is_live
        self._is_untimed = self.is_live and self._container.format.name == _UNTIMED
        if self._is_untimed:
            self.time_base = Fraction(1, 1000)
        self._start = round(Fraction(self._container.start_time or 0, av.time_base) / self.time_base)
        self._declared_s = _declared_s(self._container, stream)

    def _choose_stream(self) -> av.VideoStream:
        film = best_film(self._container)
        if film is None:
            self._container.close()
            raise VideoError(f"{self.name}: holds no video stream that can be decoded (cover art does not count)")
        film.thread_type = "AUTO"
        return film

    def __iter__(self) -> Iterator[Frame]:
        """See `Reader`.

        Raises:
            VideoError: the file breaks off, or ends well before its declared end; the frames before were yielded.
        """
        usual = max(round(1 / (self.rate * self.time_base)), 1)
        jump = jump_of(self._container) / self.time_base
        gap = GAP_S / self.time_base
        count, start, earliest, end, shape = 0, 0 if self._is_untimed else self._start, 0, 0, ()
        opened_s = time.monotonic()
        try:
            while (decoded := self._next()) is not None:
                stamp = round((time.monotonic() - opened_s) / self.time_base) if self._is_untimed else decoded.pts
                pts = end if stamp is None else stamp - start
                anew = count == 0 or pts > end + gap
                if pts < earliest - jump:
                    start, pts, anew = start + pts - end, end, True
                    if self.sound is not None:
                        self.sound.jump((start + end) * self.time_base, start * self.time_base)
                pts = max(pts, earliest)
                duration = usual if self._is_untimed else decoded.duration or usual
                image = self._upright(decoded, self._matrix)
                yield Frame(image, pts, duration, starts_anew=anew or image.shape != shape)
                count, shape = count + 1, image.shape
                earliest, end = pts + 1, pts + duration
        except VideoError:
            raise
        except (av.error.FFmpegError, OSError) as error:
            advice = "; if it is live, --live connects again" if self._may_be_live else ""
            broken = f"{self.name}: breaks off after {counted(count, 'frame')} ({_reason(error)}){advice}"
            raise VideoError(broken) from error
        self._check_end(count, end, usual)

    def _next(self) -> av.VideoFrame | None:
        with self._reading:  # reading after close() would crash
            return None if self._closed else next(self._decoded, None)

    def _find_sound(self, target: str | Path | Pipe, film: av.VideoStream, damage: Damage) -> Track | None:
        streams = list(self._container.streams.audio)
        self.has_lost_sound = bool(streams) and self.is_live
        is_wanted = bool(streams) and not self.is_live
        if self._container.format.name in _PLAYLISTS:
            of_film = self._container.streams.best("audio", related=film)
            streams = [of_film] if isinstance(of_film, AudioStream) else streams
            leave_out_others(self._container, [film, *(streams[:1] if is_wanted else [])])
        if not is_wanted:
            return None
        packets: SecondReading | Tap
        if isinstance(target, Path):
            packets = SecondReading(target, damage)
        else:
            packets = Tap()
            self._decoder.tap(streams[0], packets.put)
        return Track(SoundFormat(streams[0]), packets, self._start * self.time_base, jump_of(self._container), damage)

    def _check_end(self, count: int, end: int, usual: int) -> None:
        """Refuses a file that was cut off. FFmpeg ends it like a whole one, so the header's length decides."""
        declared_s, end_s = self._declared_s, max(float(end * self.time_base), self._decoder.damaged_until_s)
        is_ended = self._closed or self._stop.is_set()
        if is_ended or declared_s is None or (self.frame_count is not None and count >= self.frame_count):
            return
        if declared_s - end_s > max(float(_MISSING_FRAMES * usual * self.time_base), _MISSING_SHARE * declared_s):
            raise VideoError(
                f"{self.name}: ends after {counted(count, 'frame')}, at {end_s:.1f} s of the {declared_s:.1f} s that it"
                " declares; it is probably cut off"
            )

    def _decode_first(self) -> av.VideoFrame:
        why = None
        try:
            first = next(self._decoded, None)
        except VideoError:
            self._container.close()
            raise
        except (av.error.FFmpegError, OSError) as error:
            first, why = None, reason(error)
        if first is None:
            self._container.close()
            if self._stop.is_set():
                raise VideoError(f"{self.name}: stopped before its first frame")
            why = why or self._damage.why or "the stream is empty"
            raise VideoError(f"{self.name}: holds no frame that can be decoded ({why})")
        return first

    def _seek(self, start_s: float) -> None:
        """Goes to the key frame before a time, or to the beginning if the file's index does not help."""
        target_s = start_s + float(self._start * self.time_base)
        try:
            for aim_s in (target_s, 0.0):
                self._container.seek(round(aim_s * av.time_base))
                decoded = self._decoder.frames()
                first = next(decoded, None)
                if first is not None and first.pts is not None and first.pts * self.time_base <= target_s:
                    break
        except av.error.FFmpegError as error:
            raise VideoError(f"{self.name}: can't be read from {start_s:g} s on ({reason(error)})") from error
        self._decoded = itertools.chain([] if first is None else [first], decoded)

    def close(self) -> None:
        """Closes the file. If another thread is still reading from it, it stays open to the end of the process."""
        self._closed = True
        self._decoder.close()
        if self._reading.acquire(timeout=0.2):
            self._decoded = iter(())  # the old iterator would keep the decoder and its threads alive
            self._container.close()
            self._reading.release()


def _is_live(url: str, container: InputContainer) -> bool:
    """Whether a source without a length is surely live. What a web server sends may also be a file."""
    return url.partition("://")[0].lower() in LIVE_SCHEMES or container.format.name in _LIVE_FORMATS


def _reason(error: Exception) -> str:
    return "no answer in time" if isinstance(error, av.error.ExitError) else reason(error)


def _declared_s(container: InputContainer, stream: av.VideoStream) -> float | None:
    """Returns how many seconds of pictures a file declares, or None.

    Matroska declares the pictures' end, in a tag such as `00:00:04.004000000`.
    """
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    start_s = (container.start_time or 0) / av.time_base
    if tag:
        return 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3]) - start_s
    alone = len(container.streams) == 1
    return container.duration / av.time_base - start_s if alone and container.duration is not None else None
