"""Prints for every command; text from files and libraries can't control the terminal."""

from __future__ import annotations

import sys
import unicodedata
from typing import TextIO

_CONTROLS = {"Cc", "Zl", "Zp"}  # escapes, bells, backspaces, and everything that begins a new line
_TURNS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # the direction of writing
_FORMULA_STARTS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four are the wide forms of the first four
_GUARD = "'"


def harmless(text: str) -> str:
    r"""Returns a text on one line, with its control characters written out, such as `\x1b` for escape."""
    is_control = {sign: unicodedata.category(sign) in _CONTROLS or sign in _TURNS for sign in set(text)}
    return "".join(sign.encode("unicode_escape").decode() if is_control[sign] else sign for sign in text)


def tell(sentence: str) -> None:
    """Prints a sentence on stderr."""
    print(harmless(sentence), file=sys.stderr)


def show(text: str, file: TextIO | None = None) -> None:
    """Prints a result of one or more lines to `file`, or to stdout, and flushes it."""
    print("\n".join(map(harmless, text.split("\n"))), flush=True, file=file)


def csv_text(text: str) -> str:
    """Returns a text for a cell of a CSV file: a text that a spreadsheet takes for a formula gets an apostrophe before.

    OWASP advises that. A text that begins with an apostrophe gets another, so that taking one off always restores it.
    """
    return _GUARD + text if text.startswith((_GUARD, *_FORMULA_STARTS)) else text
