"""The log of a run, a line of JSON for each step and validation, and its curves."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

from salema.benchmarks.plotting import new_figure, save_figure
from salema.runtime.errors import OutputError, reason
from salema.runtime.files.disk_sync import sync

LOG, CURVES = "log.jsonl", "curves.png"
_WINDOW = 50  # steps that the curve of the loss averages


class Log:
    """Appends lines to a run's log; those after `length` bytes are cut off first, for they will be written again.

    Raises:
        OutputError: the file can't be written.
    """

    def __init__(self, folder: Path, length: int) -> None:
        self._path = folder / LOG
        try:
            self._file = self._path.open("a+", encoding="utf-8")
            self._file.truncate(min(length, self._path.stat().st_size))  # to a greater length it would add zeros
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise OutputError(f"{self._path}: can't be written ({reason(error)}); choose another place") from error

    @property
    def length(self) -> int:
        """How many bytes it has."""
        return self._file.tell()

    def add(self, record: dict[str, Any]) -> None:
        """Appends a line.

        Raises:
            OutputError: there is no room.
        """
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(f"{self._path}: can't be written ({reason(error)}); make room, then --resume") from error

    def keep(self) -> None:
        """Waits until its lines are on the disk, as a state that counts them is to come after them."""
        with suppress(OSError):  # a file system that can't sync
            sync(self._path)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Reads all lines of a run's log; one that a power cut has broken is left out."""
    records = []
    for line in (folder / LOG).read_text("utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            records.append(json.loads(line))
    return records


def smoothed(losses: list[float]) -> list[float]:
    """Returns, for each step, the mean of its loss and those of the steps before, of `_WINDOW` in all."""
    return [fmean(losses[max(end - _WINDOW, 0) : end]) for end in range(1, len(losses) + 1)]


def draw_curves(folder: Path) -> None:
    """Draws the loss over the steps, and the scores over the epochs.

    Raises:
        OutputError: the picture can't be written.
    """
    records = read_log(folder)
    steps = [record for record in records if "loss" in record]
    scored = [record for record in records if "scores" in record]
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    left.plot(smoothed([record["loss"] for record in steps]))
    left.set(xlabel="step", ylabel="loss", title=f"mean of {_WINDOW} steps")
    for name in ("nss", "auc_judd", "cc", "sim"):
        known = [(record["epoch"], record["scores"][name]) for record in scored if record["scores"][name] is not None]
        if known:
            right.plot(*zip(*known, strict=True), label=name, marker="." if len(known) == 1 else "")
    right.set(xlabel="epoch", title="validation")
    if scored:
        right.legend()
    save_figure(figure, folder / CURVES)
