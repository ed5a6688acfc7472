"""A sink: takes the result of each frame, in order, and writes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from salema.runtime.errors import OutputError, SalemaError, reason

if TYPE_CHECKING:
    from typing_extensions import Self

    from salema.runtime.postprocess import Pictures
    from salema.runtime.sources.frames import Frame


class Drawn(NamedTuple):
    """The result for one frame.

    Attributes:
        frame: the frame.
        pictures: its map; also the picture and the raw map if a sink wants them.
        is_cut: whether a shot begins here; None if cuts are not detected.
        is_new_state: whether the state was reset before it.
    """

    frame: Frame
    pictures: Pictures
    is_cut: bool | None
    is_new_state: bool


class Sink(Protocol):
    """Takes results in order. Its file gets its name when the `with` block ends; after an error it is removed."""

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
            OutputError: it can't be written; `finish` keeps the results before.
        """

    def finish(self, *, complete: bool) -> list[str]:
        """Completes the file, also after a failed write; returns sentences for the user.

        Args:
            complete: whether the source was run to its end, so that sound after the last picture is kept.

        Raises:
            OutputError: the file can't be kept.
        """


class StackedSink(ABC):
    """A sink whose `with` block leaves the contexts that `_open` entered."""

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


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns an OSError into an OutputError about the file."""
    try:
        yield
    except SalemaError:  # some of ours are OSErrors too
        raise
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({reason(error)}); make room or choose another place") from error
