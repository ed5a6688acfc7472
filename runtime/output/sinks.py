"""Where results go: an MP4 video, maps as PNG or in one NPZ file, numbers as CSV."""

from __future__ import annotations

import csv
import io
import sys
from abc import ABC, abstractmethod
from array import array
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import cv2
import numpy as np

from salema.runtime.errors import OutputError, SalemaError, reason
from salema.runtime.files.disk_sync import sync_soon
from salema.runtime.files.whole_files import append, make_folder, write_bytes, written_aside
from salema.runtime.output.frame_numbers import Measures, measure
from salema.runtime.output.map_size import levels_at
from salema.runtime.output.npz_file import NpzFile, times_file
from salema.runtime.output.provenance import remove_provenance
from salema.runtime.postprocess import to_levels
from salema.runtime.video.video_writer import VideoWriter
from salema.runtime.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from salema.runtime.output.map_size import MapSize
    from salema.runtime.postprocess import Look
    from salema.runtime.sources.frames import Frame
    from salema.runtime.sources.playback import Playback

MAP_BITS = (8, 16)


class Drawn(NamedTuple):
    """What comes out for one frame.

    Attributes:
        frame: what went in.
        grey: uint8 `[H, W]`, the map in levels.
        limits: the values of the raw map that became 0 and 255.
        picture: uint8 `[h, w, 3]`, or None if no sink wants it.
        saliency: float32 `[H, W]`, the raw map, or None if no sink wants it.
        is_cut: whether a shot begins here; None where nobody asked.
        is_new_state: whether the memory was emptied before it.
    """

    frame: Frame
    grey: NDArray[np.uint8]
    limits: tuple[np.float32, np.float32]
    picture: NDArray[np.uint8] | None
    saliency: NDArray[np.float32] | None
    is_cut: bool | None
    is_new_state: bool


class Sink(Protocol):
    """Takes results in order. What it wrote gets its name when the `with` block ends well; after an error it goes."""

    path: Path | None
    wants_picture: bool
    wants_raw: bool
    wants_cuts: bool

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, drawn: Drawn) -> None:
        """Takes one result.

        Raises:
            OutputError: it can't be written; `finish` keeps what was written before.
        """
        ...

    def finish(self, *, complete: bool) -> list[str]:
        """Ends it, also after a failed write; returns what a user should know. `complete`: nothing was cut short.

        Raises:
            OutputError: what was written can't be kept.
        """
        ...


class _Stacked(ABC):
    """A sink whose `with` block is that of what `_open` has entered."""

    wants_picture = wants_raw = wants_cuts = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @abstractmethod
    def _open(self, stack: ExitStack) -> None: ...


class VideoSink(_Stacked):
    """An MP4 file with the sound of the source."""

    wants_picture = True

    def __init__(self, path: Path, source: Playback, look: Look, start_pts: int = 0) -> None:
        self.path: Path | None = path
        self._folder, self._source, self._count, self._start_pts = path.parent, source, 0, start_pts
        width = source.width * (2 if look.view == "side-by-side" else 1)
        self._writer = VideoWriter(path, source, source.height, width, float(start_pts * source.time_base))
        self._has_failed = False

    def _open(self, stack: ExitStack) -> None:
        make_folder(self._folder)
        stack.enter_context(self._writer)

    def write(self, drawn: Drawn) -> None:
        """See `Sink`."""
        assert drawn.picture is not None
        try:
            frame = replace(drawn.frame, pts=drawn.frame.pts - self._start_pts)  # a part of a video begins at zero
            self._writer.write(drawn.picture, frame)
            self._count += 1
        except OutputError:
            self._has_failed = True
            raise

    def finish(self, *, complete: bool) -> list[str]:
        """See `Sink`."""
        if self._has_failed:
            missing = self._count - self._writer.finish_on_full_disk()
            frames = "frame" if missing == 1 else f"{missing} of these frames"
            return [f"{self.path} lacks the last {frames}"] if missing > 0 else []
        notes = self._writer.finish(all_sound=complete)
        lost = "the sound is left out: that of a live source is not kept"
        problem = lost if self._source.has_lost_sound else self._writer.sound_problem
        return [*notes, problem] if problem else notes


class MapSink(_Stacked):
    """A folder of PNG files at network size, or that of the source, named as published."""

    def __init__(self, folder: Path, bits: int, map_size: MapSize = "network") -> None:
        self.path: Path | None = folder
        self._folder, self._bits, self._count = folder, bits, 0
        self._is_large = map_size == "source"
        self.wants_raw = self._is_large or bits != MAP_BITS[0]

    def _open(self, stack: ExitStack) -> None:  # noqa: ARG002
        make_folder(self._folder)

    def write(self, drawn: Drawn) -> None:
        """See `Sink`."""
        if not self._count:
            remove_provenance(self._folder)  # of maps that are about to be others
        path = self._folder / f"{self._count + 1:04d}.png"
        write_bytes(path, cv2.imencode(".png", self._image(drawn))[1].tobytes())
        sync_soon(path)
        self._count += 1

    def _image(self, drawn: Drawn) -> NDArray[np.uint8] | NDArray[np.uint16]:
        if drawn.saliency is None:
            return drawn.grey
        if self._is_large:
            height, width = drawn.frame.image_bgr.shape[:2]
            return levels_at(drawn.saliency, drawn.limits, (height, width), self._bits)
        return to_levels(drawn.saliency, drawn.limits, self._bits)

    def finish(self, *, complete: bool) -> list[str]:  # noqa: ARG002
        """See `Sink`."""
        names = {f"{number:04d}.png" for number in range(1, self._count + 1)}
        others = sum(path.name not in names for path in self._folder.glob("*.png"))
        more = counted(others, "PNG file")
        return [f"{self._folder} also holds {more} that this run did not write"] if others else []


class NpzSink(_Stacked):
    """One NPZ file: `maps`, float32 `[T, H, W]`, raw; `times_s`, float64 `[T]`."""

    wants_raw = True

    def __init__(self, path: Path, time_base: Fraction) -> None:
        self.path: Path | None = path
        self._path, self._time_base, self._times_s = path, time_base, array("d")

    def _open(self, stack: ExitStack) -> None:
        make_folder(self._path.parent)
        aside = stack.enter_context(written_aside(self._path, durable=True))
        stack.enter_context(_translated(self._path))
        self._file = stack.enter_context(NpzFile(aside, "maps"))
        self._times = stack.enter_context(times_file(aside))

    def write(self, drawn: Drawn) -> None:
        """See `Sink`."""
        assert drawn.saliency is not None
        with _translated(self._path):
            self._file.append(drawn.saliency)
            self._times_s.append(float(drawn.frame.pts * self._time_base))
            self._times.write(self._times_s[-1:].tobytes())

    def finish(self, *, complete: bool) -> list[str]:  # noqa: ARG002
        """See `Sink`."""
        if not self._times_s:
            raise OutputError(f"{self._path}: can't be written, not even its first map; make room")
        with _translated(self._path):
            self._file.finish(times_s=np.asarray(self._times_s, "<f8"))
        return []


class CsvSink(_Stacked):
    """A line a frame: number, time, `Measures`, whether a shot begins, whether the state is new."""

    wants_raw = wants_cuts = True

    def __init__(self, path: Path, time_base: Fraction, count: int = 0) -> None:
        self.path: Path | None = path
        self._path, self._time_base, self._count = path, time_base, count

    def _open(self, stack: ExitStack) -> None:
        make_folder(self._path.parent)
        self._aside = stack.enter_context(written_aside(self._path, durable=True))
        stack.enter_context(_translated(self._path))
        self._file = stack.enter_context(
            io.FileIO(self._aside, "w")
        )  # unbuffered: a full disk is noticed where it is met
        self._write_header()

    def _write_header(self) -> None:
        names = [field.name for field in fields(Measures)]
        self._write_line(["frame", "time_s", *names, "cut", "new_state"])

    def write(self, drawn: Drawn) -> None:
        """See `Sink`."""
        assert drawn.saliency is not None
        height, width = drawn.frame.image_bgr.shape[:2]
        time_s = f"{float(drawn.frame.pts * self._time_base):.6f}"
        measures = [f"{value:.6g}" for value in astuple(measure(drawn.saliency, (height, width)))]
        self._write_line([self._count + 1, time_s, *measures, int(bool(drawn.is_cut)), int(drawn.is_new_state)])
        self._count += 1

    def finish(self, *, complete: bool) -> list[str]:  # noqa: ARG002
        """See `Sink`."""
        return []

    def _write_line(self, values: list[object]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(values)
        with _translated(self._path):
            self._append(line.getvalue().encode())

    def _append(self, line: bytes) -> None:
        append(self._file, line)
        sync_soon(self._aside)


class StdoutCsvSink(CsvSink):
    """The same lines on standard output, each as soon as it is known."""

    def __init__(self, path: Path, time_base: Fraction) -> None:
        super().__init__(path, time_base)
        self.path, self._path = None, Path("standard output")

    def _open(self, stack: ExitStack) -> None:  # noqa: ARG002
        self._write_header()

    def _append(self, line: bytes) -> None:
        if sys.stdout is None:
            raise OutputError("--csv -: standard output is closed; name a file")
        try:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        except BrokenPipeError as error:
            raise OutputError("--csv -: nobody reads standard output any more") from error


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except SalemaError:  # some of ours are OSErrors too
        raise
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({reason(error)}); make room or choose another place") from error
