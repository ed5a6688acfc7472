"""Words that depend on numbers."""

from __future__ import annotations

from collections.abc import Iterable


def counted(count: int, noun: str) -> str:
    """Returns a number with its noun, such as `1 video` or `2 videos`; the plural is the noun with an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(names: Iterable[str], most: int = 5) -> str:
    """Returns `a, b`, or `a, b and 3 more` if there are more than `most` names, or `none` if there are none."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return (", ".join(every[:most]) or "none") + more
