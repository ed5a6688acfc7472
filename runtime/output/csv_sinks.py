"""CSV: a line of numbers per frame, in a file or on standard output."""

from __future__ import annotations

import csv
import io
import sys
from contextlib import ExitStack
from dataclasses import astuple, fields
from fractions import Fraction
from pathlib import Path

from salema.runtime.errors import OutputError
from salema.runtime.files.disk_sync import sync_soon
from salema.runtime.files.whole_files import append, make_folder, translated, written_aside
from salema.runtime.output.frame_numbers import Measures, measure
from salema.runtime.output.sink import Drawn, Sink


class CsvSink(Sink):
    """A line per frame: number, time, `Measures`, whether a shot begins, whether the state was reset."""

    wants_raw = wants_cuts = True

    def __init__(self, path: Path, time_base: Fraction, count: int = 0) -> None:
        self.path = path
        self._path, self._time_base, self._count = path, time_base, count

    def _open(self, stack: ExitStack) -> None:
        make_folder(self._path.parent)
        self._aside = stack.enter_context(written_aside(self._path, durable=True))
        stack.enter_context(translated(self._path))
        self._file = stack.enter_context(io.FileIO(self._aside, "w"))  # unbuffered: a full disk is noticed at once
        self._write_header()

    def _write_header(self) -> None:
        names = [field.name for field in fields(Measures)]
        self._write_line(["frame", "time_s", *names, "cut", "new_state"])

    def write(self, drawn: Drawn) -> None:
        """See `Sink`."""
        assert drawn.pictures.saliency is not None
        height, width = drawn.frame.image_bgr.shape[:2]
        time_s = f"{float(drawn.frame.pts * self._time_base):.6f}"
        measures = [f"{value:.6g}" for value in astuple(measure(drawn.pictures.saliency, (height, width)))]
        self._write_line([self._count + 1, time_s, *measures, int(bool(drawn.is_cut)), int(drawn.is_new_state)])
        self._count += 1

    def _write_line(self, values: list[object]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(values)
        with translated(self._path):
            self._append(line.getvalue().encode())

    def _append(self, line: bytes) -> None:
        append(self._file, line)
        sync_soon(self._aside)


class StdoutCsvSink(CsvSink):
    """The same lines on standard output, each as soon as it is ready."""

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
