"""A sink: takes the result of each frame, in order, and writes it."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from salema.runtime.closing import Stacked

if TYPE_CHECKING:
    from salema.runtime.postprocess import Pictures
    from salema.runtime.sources.frames import Frame


class Drawn(NamedTuple):
    """The result for one frame: its map, and what sinks want of picture and raw map.

    `is_cut` says whether a shot begins here, None if cuts are not detected; `is_new_state` whether the state was reset
    before it.
    """

    frame: Frame
    pictures: Pictures
    is_cut: bool | None
    is_new_state: bool


class Sink(Stacked):
    """Takes results in order. Its file gets its name when the `with` block ends; after an error it is removed."""

    path: Path | None
    wants_picture = wants_raw = wants_cuts = False

    @abstractmethod
    def write(self, drawn: Drawn) -> None:
        """Takes one result.

        Raises:
            OutputError: it can't be written; `finish` keeps the results before.
        """

    def finish(self, *, complete: bool) -> list[str]:  # noqa: ARG002
        """Completes the file, also after a failed write; returns sentences for the user.

        Args:
            complete: whether the source was run to its end, so that sound after the last picture is kept.

        Raises:
            OutputError: the file can't be kept.
        """
        return []
