"""Splits an output into parts of some minutes each, so that a camera's recording is not one endless file."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from salema.runtime.errors import KeptError, OutputError, VideoError
from salema.runtime.output.sink import Drawn, Sink
from salema.runtime.wording import counted

_STEM_LENGTH = 50  # of the hidden name that a file has while it is written


def is_part_of(output: Path, stem: str) -> bool:
    """Whether a file with this stem is `output` or a part of it, finished or not."""
    return bool(re.fullmatch(rf"{re.escape(output.stem[:_STEM_LENGTH])}(_\d{{4}}.*)?", stem, re.DOTALL))


class SplitSink(Sink):
    """A `Sink` that begins a new file every few minutes of the source's time.

    Parts are named `name_0001.mp4` and so on. For a live source the name also has the part's start time (UTC), and the
    numbers go on after the greatest one that exists, so that a restarted run replaces nothing. A part is finished in
    another thread, as a camera does not wait.

    A part is `minutes` long. `open_part` makes its sink from its path, its first time stamp, and the number of frames
    before it.
    """

    def __init__(
        self,
        path: Path,
        minutes: float,
        open_part: Callable[[Path, int, int], Sink],
        time_base: Fraction,
        *,
        is_live: bool,
    ) -> None:
        self.path = path
        self._path, self._part_s, self._open_part = path, 60 * minutes, open_part
        self._time_base, self._is_live = time_base, is_live
        part = open_part(path, 0, 0)
        self.wants_picture, self.wants_raw, self.wants_cuts = part.wants_picture, part.wants_raw, part.wants_cuts
        self._sink: Sink | None = None
        self._index = self._count = 0
        self._names: list[str] = []
        self._finishing: list[Future[list[str]]] = []

    def _open(self, stack: ExitStack) -> None:
        self._number = self._first_number()
        stack.push(self._leave_part)
        self._pool = stack.enter_context(ThreadPoolExecutor(1, "part"))

    def _leave_part(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sink is not None:
            self._sink.__exit__(kind, error, trace)

    def write(self, drawn: Drawn) -> None:
        """See `Sink`."""
        index = int(float(drawn.frame.pts * self._time_base) / self._part_s)
        if self._sink is None or index > self._index:
            self._begin(index, drawn.frame.pts)
        assert self._sink is not None
        self._sink.write(drawn)
        self._count += 1

    def _begin(self, index: int, pts: int) -> None:
        """Begins a part, while the one before is being finished."""
        self._finish_part(complete=False)
        for part in self._finishing:
            if part.done():
                part.result()  # raises the part's error
        began = f"_{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}" if self._is_live else ""
        path = self._path.with_name(f"{self._path.stem}_{self._number:04d}{began}{self._path.suffix}")
        self._sink = self._open_part(path, pts, self._count).__enter__()
        self._index, self._number = index, self._number + 1
        self._names.append(path.name)

    def _finish_part(self, *, complete: bool) -> None:
        if self._sink is not None:
            self._finishing.append(self._pool.submit(_finish, self._sink, complete=complete))
            self._sink = None

    def finish(self, *, complete: bool) -> list[str]:
        """See `Sink`.

        Raises:
            KeptError: a part is lost or not whole, and others are kept.
        """
        self._finish_part(complete=complete)
        kept, notes, problems = list[str](), list[str](), list[str]()
        for name, part in zip(self._names, self._finishing, strict=True):
            try:
                notes += part.result()
                kept.append(name)
            except (KeptError, VideoError) as error:  # noqa: PERF203 - the other parts are finished too
                kept.append(name)
                notes += getattr(error, "notes", ())
                problems.append(str(error))
            except OutputError as error:
                if len(self._names) == 1:
                    raise
                problems.append(f"{name} is not kept: {error}")
        if not kept:
            raise OutputError("; ".join(problems))
        notes = [f"{self._path} is split: {_first_to_last(kept)}", *dict.fromkeys(notes), *self._left_by_others()]
        if problems:
            raise KeptError("; ".join(problems), notes)
        return notes

    def _parts(self, then: str) -> Iterator[Path]:
        number = "[0-9]" * 4
        return self._path.parent.glob(f"{glob.escape(self._path.stem)}_{number}{then}{self._path.suffix}")

    def _left_by_others(self) -> list[str]:
        """Tells of parts that an earlier run left, as one with shorter parts does; a live source's go on after them."""
        others = [] if self._is_live else sorted({path.name for path in self._parts("")} - {*self._names})
        parts = counted(len(others), "part")
        more = f"{self._path.parent} also holds {parts} that this run did not write"
        return [f"{more}: {_first_to_last(others)}"] if others else []

    def _first_number(self) -> int:
        if not self._is_live:
            return 1
        parts = self._parts("*")
        prefix = len(self._path.stem) + 1
        numbers = [re.match(r"\d+", path.name[prefix:]) for path in parts]
        return max((int(number[0]) for number in numbers if number), default=0) + 1


def _first_to_last(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _finish(sink: Sink, *, complete: bool) -> list[str]:
    """Finishes a part, which gets its name unless it is lost; returns sentences for the user."""
    with ExitStack() as stack:
        stack.push(sink)
        try:
            return sink.finish(complete=complete)
        except (KeptError, VideoError) as error:
            problem = error
    raise problem
