"""Files that can't be read while a dataset is scored: reported at the end, or, with `strict`, at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from salema.runtime.errors import MapError, UnreachableError, VideoError

if TYPE_CHECKING:
    from salema.benchmarks.maps.ground_truth import VideoTruth

_Result = TypeVar("_Result")
_MOST_UNREACHED = 20  # in a row; each was tried several times, so the others can't be reached either


class Failures:
    """Frames whose map or ground truth is damaged or missing, and videos that break off.

    Args:
        strict: whether the first failure is raised.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict, self._unreached = strict, 0
        self._found: dict[tuple[str, int], str] = {}  # workers write to it: setting an entry is one step

    def attempt(self, key: str, index: int, work: Callable[[], _Result]) -> _Result | None:
        """Returns what `work` gives for a frame of a video; None if a file of it can't be read.

        Raises:
            MapError: it can't, and `strict` was asked for.
            VideoError: the same; or many files in a row can't be reached at their URLs.
        """
        try:
            result = work()
        except (MapError, VideoError) as error:
            self._unreached = self._unreached + 1 if isinstance(error, UnreachableError) else 0
            if self._strict or self._unreached >= _MOST_UNREACHED:
                raise
            self._found[key, index] = str(error)
            return None
        self._unreached = 0
        return result

    def has(self, key: str, index: int) -> bool:
        """Whether a file of this frame could not be read."""
        return (key, index) in self._found

    def handed_over(self) -> dict[tuple[str, int], str]:
        """Returns a worker process's failures since the last call; its parent passes them to `add`."""
        found, self._found = self._found, {}
        return found

    def add(self, found: Mapping[tuple[str, int], str]) -> None:
        """Adds failures that a worker process handed over."""
        self._found.update(found)

    def named(self, truth: Mapping[str, VideoTruth]) -> dict[str, str]:
        """Returns the reason for each failure, by the names of video and frame, in their order."""
        order = {key: place for place, key in enumerate(truth)}
        found = sorted(self._found.items(), key=lambda item: (order[item[0][0]], item[0][1]))
        return {f"{truth[key].name}/{truth[key].frames[index].name}": why for (key, index), why in found}
