"""Words that follow from numbers."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Returns `1 video`, `2 videos`: the plural of `noun` has an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
