"""Maps for every video of a dataset. A run can be resumed, and goes on if a video fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from salema.runtime.errors import SalemaError
from salema.runtime.output.map_size import MapSize
from salema.runtime.output.outputs import Outputs
from salema.runtime.output.provenance import NAME, read_provenance
from salema.runtime.run.dataset_layouts import FrameFolder
from salema.runtime.run.pipeline import run_provenance
from salema.runtime.run.stages import RunOptions
from salema.runtime.run.summary import Summary
from salema.runtime.run.videos import run_jobs, run_source
from salema.runtime.sources.selection import Selection
from salema.runtime.stream import SaliencyStream

_PNG_END = b"IEND\xaeB\x60\x82"
_Result = Summary | Literal["skipped"] | None


@dataclass(frozen=True)
class DatasetSummary:
    """What a run over a dataset did.

    Attributes:
        videos: number of videos that were run to their end.
        skipped: number of videos that the same model had finished before.
        frames: number of maps written.
        failed: error by the video's name.
        interrupted: whether a signal ended the run. Videos that were running are unfinished.
        stopped: whether a failure ended the run (`strict`). Videos that were running are unfinished.
        again: with `--resume`, why a video that had all its maps was run again, by the video's name.
        notes: other sentences for the user.
    """

    videos: int
    skipped: int
    frames: int
    failed: dict[str, str]
    interrupted: bool
    stopped: bool = False
    again: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def run_dataset(
    videos: Sequence[FrameFolder],
    open_stream: Callable[[], SaliencyStream],
    *,
    jobs: int = 1,
    resume: bool = False,
    map_size: MapSize = "network",
    strict: bool = False,
    stop: threading.Event | None = None,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> DatasetSummary:
    """Writes the map of every frame as the published code does: stretched to 0..255 per frame.

    Args:
        videos: the videos.
        open_stream: opens the model, once for each job. The state is reset for each video.
        jobs: how many videos run at a time.
        resume: skip a video if all its maps are whole and its `salema.json` names the same frames and model.
        map_size: one of `MAP_SIZES`: `network`, as published, or each frame's own.
        strict: whether the first video that fails ends the run.
        stop: once set, ends the run after the frames that are being processed.
        progress: called with the numbers of videos and frames done since the last call.
        notify: called with a sentence if a video with all its maps is run again.

    Raises:
        SalemaError: the model can't be opened.
    """
    work = _Work(resume, map_size, stop or threading.Event(), progress or (lambda *_: None), notify)
    results = list[tuple[str, _Result | SalemaError | OSError]]()
    is_stopped = False
    for video, result in run_jobs(videos, open_stream, work, jobs):
        results.append((video.name, result))
        if isinstance(result, Summary) and result.ended_by is None:
            work.progress(1, 0)
        if strict and _failure(result) is not None and not work.stop.is_set():
            is_stopped = True
            work.stop.set()
    return _summed_up(results, work, len(videos), is_stopped=is_stopped)


def _failure(result: _Result | SalemaError | OSError) -> str | None:
    """Returns why a video failed, or None."""
    if isinstance(result, Summary):
        return result.error
    return str(result) if isinstance(result, Exception) else None


def _summed_up(
    results: Sequence[tuple[str, _Result | SalemaError | OSError]], work: _Work, count: int, *, is_stopped: bool
) -> DatasetSummary:
    failed = {name: why for name, result in results if (why := _failure(result)) is not None}
    runs = [result for _, result in results if isinstance(result, Summary) and result.error is None]
    whole = [run for run in runs if run.ended_by is None]
    skipped = sum(result == "skipped" for _, result in results)
    is_interrupted = work.stop.is_set() and not is_stopped and len(whole) + skipped + len(failed) < count
    frames, notes = sum(run.frames for run in runs), tuple(note for run in whole for note in run.notes)
    return DatasetSummary(len(whole), skipped, frames, failed, is_interrupted, is_stopped, work.again, notes)


@dataclass
class _Work:
    """Runs a video, unless its maps are there already."""

    resume: bool
    map_size: MapSize
    stop: threading.Event
    progress: Callable[[int, int], None]
    notify: Callable[[str], None]
    again: dict[str, str] = field(default_factory=dict)

    def __call__(self, video: FrameFolder, stream: SaliencyStream) -> _Result:
        """Returns what was done; None if it was stopped before it began."""
        outputs = Outputs(maps=video.folder, map_size=self.map_size, map_name=video.map_name)
        if self.resume and not self.stop.is_set() and is_finished(video):
            differs = _difference(video, stream, outputs)
            if not differs:
                self.progress(1, len(video.frames))
                return "skipped"
            if differs not in self.again.values():  # say it once, not for every video
                self.notify(f"{video.name} has all its maps, but {differs}; it is run again, as are others like it")
            self.again[video.name] = differs
        return run_source(
            *(stream, video.source, outputs, Selection(), RunOptions()),
            stop=self.stop,
            progress=lambda frames: self.progress(0, frames),
            notify=self.notify,
        )


def _difference(video: FrameFolder, stream: SaliencyStream, outputs: Outputs) -> str:
    """Returns how the existing maps were made differently; empty if they were made as they would be now."""
    before = read_provenance(video.folder)
    if before is None:
        return f"no {NAME} tells what made them"
    count = len(video.frames)
    now = run_provenance(
        *(stream, video.source, Selection(), outputs, RunOptions()), frames=count, frames_expected=count
    )
    return before.differs_from(now)


def is_finished(video: FrameFolder) -> bool:
    """Whether every map of a video exists and ends as a PNG does.

    The header of a video file may give a wrong number of frames. A finished run has recorded the right one.
    """
    count = len(video.maps)
    if video.film and (made := read_provenance(video.folder)) is not None and made.complete:
        count = made.frames
    return all(_is_whole(video.folder / video.map_name(number)) for number in range(1, count + 1))


def _is_whole(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-len(_PNG_END), 2)
            return file.read() == _PNG_END
    except OSError:
        return False
