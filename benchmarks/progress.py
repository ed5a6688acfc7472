"""The progress of `salema-bench`: a bar on a terminal, a line for each round elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

from salema.benchmarks.speed.harness import ROUNDS
from salema.runtime.telling import harmless, tell

if TYPE_CHECKING:
    from typing_extensions import Self


class TurnBar:
    """Shows the turns of `compare_for`, those of the warm-up included."""

    def __init__(self, turns: int) -> None:
        self._has_bar = sys.stderr.isatty()
        self._bar = tqdm(total=turns, unit=" turns", disable=not self._has_bar)
        self._round = -1
        self._is_first = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._bar.update()
        self._bar.close()

    def __call__(self, number: int, case: str) -> None:
        """Shows the turn that begins: the round's number, from 1, and the case; 0 is the warm-up."""
        if not self._is_first:
            self._bar.update()
        self._is_first = False
        what = f"round {number} of {ROUNDS}" if number else "warming up"
        self._bar.set_postfix_str(harmless(f"{what}: {case}"))
        if not self._has_bar and number != self._round:
            tell(f"  {what}")
        self._round = number
