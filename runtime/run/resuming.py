"""What a run with `--resume` skips: outputs that are there whole, and were made as they would be now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from salema.runtime.errors import UsageError
from salema.runtime.output.outputs import Outputs
from salema.runtime.output.provenance import NAME, read_provenance
from salema.runtime.run.pipeline import run_provenance
from salema.runtime.run.stages import RunOptions
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import Source
from salema.runtime.stream import SaliencyStream

_PNG_END = b"IEND\xaeB\x60\x82"


class Again:
    """Tells why videos that have all their outputs, which it calls `what`, are run again: once, not for each."""

    def __init__(self, what: str, notify: Callable[[str], None]) -> None:
        self._what, self._notify = what, notify
        self.reasons: dict[str, str] = {}

    def __call__(self, video: str, why: str) -> None:
        """Takes a video that is run again."""
        if why not in self.reasons.values():
            self._notify(f"{video} has all its {self._what}, but {why}; it is run again, as are others like it")
        self.reasons[video] = why


def never_finished(outputs: Outputs) -> str:
    """Returns the options of outputs that no file with a record shows to be finished; empty if there are none."""
    split = outputs.split_minutes is not None
    given = {"--csv -": outputs.csv_to_stdout, "--show": outputs.show, "--split-minutes": split}
    return " ".join(option for option, is_given in given.items() if is_given)


def check_resume(outputs: Outputs) -> None:
    """Refuses outputs that can't be skipped.

    Raises:
        UsageError: see `never_finished`.
    """
    if options := never_finished(outputs):
        raise UsageError(f"--resume {options}: it skips by whole files, which these are not; leave one of them out")


def is_done(
    stream: SaliencyStream, source: Source, selection: Selection, outputs: Outputs, options: RunOptions, again: Again
) -> bool:
    """Whether a file or a folder can be skipped; tells `again` if it has all its outputs, but made differently."""
    if not source.repeatable or source.problem or not _has_all(outputs):
        return False
    differs = difference(stream, source, selection, outputs, options)
    if differs:
        again(source.shown, differs)
    return not differs


def _has_all(outputs: Outputs) -> bool:
    """Whether all outputs are there: every file, and every map that its record counts."""
    return all(_has_maps(outputs, path) if path == outputs.maps else path.is_file() for path in outputs.files)


def _has_maps(outputs: Outputs, folder: Path) -> bool:
    made = read_provenance(folder)
    count = made.frames if made else 0
    return folder.is_dir() and all(is_whole(folder / outputs.map_name(number)) for number in range(1, count + 1))


def is_whole(path: Path) -> bool:
    """Whether a PNG ends as it should."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_PNG_END), 2)
            return file.read() == _PNG_END
    except OSError:
        return False


def difference(
    stream: SaliencyStream, source: Source, selection: Selection, outputs: Outputs, options: RunOptions
) -> str:
    """Returns how existing outputs were made differently; empty if they were made as they would be now."""
    before = [read_provenance(path) for path in outputs.files]
    if None in before:
        return f"no {NAME} tells what made them"
    now = run_provenance(stream, source, selection, outputs, options, frames=0, frames_expected=None)
    return next(filter(None, (made.differs_from(now) for made in before if made)), "")
