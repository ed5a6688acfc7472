"""What `salema-run` prints: results on stdout, all else on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from salema.runtime.errors import INTERRUPTED_EXIT_CODE, SalemaError
from salema.runtime.output.outputs import Outputs
from salema.runtime.run.dataset import DatasetSummary
from salema.runtime.run.summary import Outcome, Summary
from salema.runtime.sources.source import Source
from salema.runtime.telling import show, tell
from salema.runtime.wording import counted


class Report:
    """Prints the result of each source, on `file`, and ends the command with the exit code."""

    def __init__(self, count: int, *, as_json: bool, file: TextIO | None = None, can_resume: bool = False) -> None:
        self._count, self._as_json, self._file = count, as_json, file
        self._go_on = "; go on with --resume" if can_resume and count > 1 else ""
        self._failed = self._skipped = 0
        self._has_reported = self._is_interrupted = False

    def add(self, source: Source, outputs: Outputs, result: Outcome, backend: str) -> None:
        """Prints the result of one source."""
        if result is None:
            self._is_interrupted = True
            return
        self._has_reported = True
        if isinstance(result, OSError | SalemaError):
            if self._count == 1:
                raise result
            self._fail(source.problem or f"{source.shown}: {str(result).removeprefix(f'{source.shown}: ')}")
            return
        if result == "skipped":
            self._skipped += 1
            if self._as_json:
                self._print_json({"source": source.shown, "skipped": True}, outputs)
            return
        self._print(source, outputs, result, backend)
        name = f"{source.shown}: " if self._count > 1 else ""
        for note in _notes(result):
            tell(f"note: {name}{note}")
        if result.error:
            but = f", but for {' and '.join(result.lost)}" if result.lost else ""
            self._fail(f"{result.error}; what came before is written{but}")
        elif result.interrupted:
            self._is_interrupted = True
            frames = counted(result.frames, "frame")
            if result.frames_expected:
                frames = f"{result.frames} of {counted(result.frames_expected, 'frame')}"
            written = "it is written" if result.frames == 1 else "these are written"
            tell(f"salema-run: {name}interrupted after {frames}; {written}")

    @property
    def has_failed(self) -> bool:
        """Whether a source failed."""
        return bool(self._failed)

    def exit(self, *, strict: bool = False) -> None:
        """Prints how many sources were skipped; ends the command if one failed or the run was interrupted."""
        if self._skipped and not self._as_json:
            skipped = f"{self._skipped} of {counted(self._count, 'source')}"
            show(f"{skipped} {_were(self._skipped)} finished before, and skipped", self._file)
        if self._failed and self._count > 1:
            others = "; the others are done" if self._failed < self._count else ""
            others = f"; interrupted{self._go_on}" if self._is_interrupted else others
            others = "; stopped there, as --strict asks" if strict else others
            tell(f"salema-run: {self._failed} of {self._count} sources failed{others}")
        if self._failed:
            raise SystemExit(1)
        if self._is_interrupted:
            if self._go_on or not self._has_reported:
                tell(f"salema-run: interrupted{self._go_on}")
            raise SystemExit(INTERRUPTED_EXIT_CODE)

    def _fail(self, sentence: str) -> None:
        self._failed += 1
        tell(f"salema-run: {sentence}")

    def _print(self, source: Source, outputs: Outputs, summary: Summary, backend: str) -> None:
        if self._as_json:
            facts = {"source": source.shown, "backend": backend, **asdict(summary)}
            self._print_json(facts, outputs, summary.lost)
            return
        stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in summary.stage_ms.items())
        places = [str(path) for path in outputs.files if str(path) not in summary.lost]
        places += ["standard output"] if outputs.csv_to_stdout else []
        name = f"{source.shown}: " if self._count > 1 else ""
        show(
            f"{name}{counted(summary.frames, 'frame')} in {summary.seconds:.1f} s,"
            f" {summary.fps:.1f} fps (ms per frame: {stages}) -> {' and '.join(places) or 'the window'}",
            self._file,
        )

    def _print_json(self, facts: dict[str, Any], outputs: Outputs, lost: Sequence[str] = ()) -> None:
        where = {name: getattr(outputs, name) for name in ("video", "maps", "npz", "csv")}
        where = {name: None if path is None or str(path) in lost else str(path) for name, path in where.items()}
        print(json.dumps({**facts, **where}), flush=True, file=self._file)


def _damage(summary: Summary) -> Iterator[str]:
    at = "" if summary.first_damage_s is None else f", the first at {summary.first_damage_s:.1f} s"
    if packets := summary.damaged_packets:
        yield f"{counted(packets, 'damaged packet')} could not be decoded, and {_were(packets)} left out{at}"
        at = ""
    if images := summary.damaged_images:
        yield f"{counted(images, 'image')} could not be read, and {_were(images)} left out{at} ({summary.damage_why})"
        at = ""
    if pictures := summary.damaged_pictures:
        yield f"{counted(pictures, 'damaged picture')} {_were(pictures)} filled in by the decoder{at}"


def _notes(summary: Summary) -> list[str]:
    notes = [*_damage(summary), *summary.notes]
    if summary.cuts:
        of_memory = "each emptied the memory" if summary.cuts_reset else "the memory went on; --reset-on-cut empties it"
        notes.append(f"{counted(summary.cuts, 'scene cut')}: {of_memory}")
    if summary.source_start_s:
        notes.append(f"times count from the first frame that was run, at {summary.source_start_s:.3f} s of the source")
    if summary.dropped:
        dropped = f"{counted(summary.dropped, 'frame')} came while the network was busy, and"
        notes.append(f"{dropped} {_were(summary.dropped)} dropped; --every-frame keeps all")
    if summary.outages:
        times = "once" if summary.outages == 1 else f"{summary.outages} times"
        notes.append(
            f"lost {times}, for {summary.outage_s:.1f} s in all: about {counted(summary.frames_lost, 'frame')}"
        )
    return notes


def report_dataset(summary: DatasetSummary, count: int, target: Path, *, as_json: bool) -> None:
    """Prints the result of a dataset, and ends the command if a video failed or the run was interrupted."""
    if as_json:
        print(json.dumps({**asdict(summary), "target": str(target)}))
    else:
        skipped = f", {summary.skipped} {_were(summary.skipped)} finished before" if summary.skipped else ""
        show(f"{summary.videos} of {counted(count, 'video')}, {counted(summary.frames, 'map')} -> {target}{skipped}")
    notes = list(summary.notes)
    if summary.again:
        count_again = len(summary.again)
        notes.append(f"{counted(count_again, 'video')} with differently made maps {_were(count_again)} run again")
    for note in notes:
        tell(f"note: {note}")
    for name, error in summary.failed.items():
        tell(f"salema-run: {name}: {error}")
    if summary.cut_off:
        tell(f"salema-run: {summary.cut_off}; go on with --resume")
        raise SystemExit(1)
    if summary.interrupted:
        tell("salema-run: interrupted; go on with --resume")
        raise SystemExit(INTERRUPTED_EXIT_CODE)
    if summary.failed:
        others = "; the others are done" if len(summary.failed) < count else ""
        others = "; stopped there, as --strict asks; go on with --resume" if summary.stopped else others
        tell(f"salema-run: {len(summary.failed)} of {counted(count, 'video')} failed{others}")
        raise SystemExit(1)


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
