"""Names in natural order: `2` before `10`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_Item = TypeVar("_Item")


def by_name(paths: Iterable[Path]) -> list[Path]:
    """Sorts paths by their own names."""
    return natural_order(paths, lambda path: path.name)


def by_path(paths: Iterable[Path]) -> list[Path]:
    """Sorts paths by all their parts."""
    from natsort import natsorted, ns  # noqa: PLC0415 - see `_natural_key`

    return natsorted(paths, key=str, alg=ns.PATH | ns.INT)


def natural_order(items: Iterable[_Item], name: Callable[[_Item], str]) -> list[_Item]:
    """Sorts items by their names. Items whose names differ in leading zeros only keep their order."""
    named = [(name(item), item) for item in items]
    are_numbers = all(text.isascii() and text.isdecimal() for text, _ in named)
    key: Callable[[str], Any] = int if are_numbers else _natural_key()
    return [item for _, item in sorted(named, key=lambda pair: key(pair[0]))]


@cache
def _natural_key() -> Callable[[str], Any]:
    # Imported only if a name is not a plain number, because it takes a tenth of a short command's time.
    from natsort import natsort_keygen, ns  # noqa: PLC0415

    return natsort_keygen(alg=ns.INT)
