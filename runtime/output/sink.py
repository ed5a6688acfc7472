"""What a sink is: it takes what was drawn of each frame, in order, and keeps it."""

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
    """What comes out for one frame.

    Attributes:
        frame: what went in.
        pictures: what was made of it; a picture and the raw map where a sink wants them.
        is_cut: whether a shot begins here; None where nobody asked.
        is_new_state: whether the memory was emptied before it.
    """

    frame: Frame
    pictures: Pictures
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


class StackedSink(ABC):
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


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns the system's errors into one sentence about a file.

    Raises:
        OutputError: it can't be written.
    """
    try:
        yield
    except SalemaError:  # some of ours are OSErrors too
        raise
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({reason(error)}); make room or choose another place") from error
