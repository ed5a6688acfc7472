"""How every command says something: text from files and libraries can't steer the terminal that it is shown on."""

from __future__ import annotations

import sys
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

_CONTROLS = {"Cc", "Zl", "Zp"}  # escapes, bells, backspaces, and all that begins a line
_TURNS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # the direction of writing
_FORMULA_STARTS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last are the wide forms of the first
_GUARD = "'"


def harmless(text: str) -> str:
    r"""Returns a text on one line, its control characters written out: `\x1b` for the one that begins escapes."""
    return "".join(_written_out(sign) if _is_control(sign) else sign for sign in text)


def tell(sentence: str) -> None:
    """Says a sentence on stderr."""
    print(harmless(sentence), file=sys.stderr)


def show(text: str, file: TextIO | None = None) -> None:
    """Prints a result, of one line or several, at once; on stdout, if it is not said where."""
    print("\n".join(map(harmless, text.split("\n"))), flush=True, file=file)


def csv_text(text: str) -> str:
    """Returns a text for a cell of a CSV file: an apostrophe goes before what a spreadsheet takes for a formula.

    That is what OWASP advises. What begins with an apostrophe gets another, so that `from_csv_text` gives it back.
    """
    return _GUARD + text if text.startswith((_GUARD, *_FORMULA_STARTS)) else text


def from_csv_text(cell: str) -> str:
    """Returns what `csv_text` was given."""
    return cell.removeprefix(_GUARD)


def _is_control(sign: str) -> bool:
    return unicodedata.category(sign) in _CONTROLS or sign in _TURNS


def _written_out(sign: str) -> str:
    return sign.encode("unicode_escape").decode()
