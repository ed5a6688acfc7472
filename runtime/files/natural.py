"""Names in natural order: `2` before `10`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

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
    key = _key_of([text for text, _ in named])
    return [item for _, item in sorted(named, key=lambda pair: key(pair[0]))]


def _key_of(names: list[str]) -> Callable[[str], Any]:
    if not all(map(str.isascii, names)):
        return _natural_key()
    if all(map(str.isdecimal, names)):
        return int
    return _natural_key() if any(map(str.isdecimal, "".join(names))) else str


@cache
def _natural_key() -> Callable[[str], Any]:
    # Imported only if names mix numbers with text, because it takes a tenth of a short command's time.
    from natsort import natsort_keygen, ns  # noqa: PLC0415

    return natsort_keygen(alg=ns.INT)
