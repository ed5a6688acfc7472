"""What is read from files again and again, kept in the memory up to a bound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

Array = TypeVar("Array", bound=NDArray[Any])


class Kept(Generic[Array]):
    """Reads arrays by their path, and keeps the first of them, until they take so many bytes.

    What does not fit is read each time. Nothing is thrown out for it: an epoch takes each file once, so the oldest is
    no less wanted than the newest.

    Each process may keep `most_bytes`.
    """

    def __init__(self, read: Callable[[Path], Array], most_bytes: int) -> None:
        self._read, self._left = read, most_bytes
        self._kept: dict[Path, Array] = {}

    def __call__(self, path: Path) -> Array:
        """Returns the array of a file."""
        kept = self._kept.get(path)
        if kept is not None:
            return kept
        array = self._read(path)
        if array.nbytes <= self._left:
            self._left -= array.nbytes
            self._kept[path] = array
        return array
