"""Maps for every video of a dataset. A run can be resumed, and goes on if a video fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from salema.runtime.errors import SalemaError
from salema.runtime.files.remote_path import is_remote
from salema.runtime.output.map_size import MapSize
from salema.runtime.output.outputs import Outputs
from salema.runtime.output.provenance import read_provenance
from salema.runtime.run.dataset_layouts import FrameFolder
from salema.runtime.run.remote_videos import run_at_home
from salema.runtime.run.resuming import Again, difference, is_whole
from salema.runtime.run.stages import RunOptions
from salema.runtime.run.summary import Outcome, Summary
from salema.runtime.run.videos import run_jobs, run_source
from salema.runtime.sources.selection import Selection
from salema.runtime.stream import SaliencyStream


class Told(Protocol):
    """Takes what a run tells while it goes on, from any thread."""

    def frames(self, count: int) -> None:
        """Takes the number of frames done since the last call."""

    def note(self, sentence: str) -> None:
        """Takes a sentence for the user."""

    def again(self, video: str, why: str) -> None:
        """Takes why a video that has all its maps is run again."""


RunAll = Callable[[Sequence[FrameFolder], "VideoWork", Told, threading.Event], Iterator[tuple[FrameFolder, Outcome]]]
"""Runs videos, here or elsewhere, until the event is set; yields each as it ends.

It raises a SalemaError if the model can't be opened, or there is nowhere to run.
"""


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
        cut_off: why the run ended before all videos were done, other than by them; empty if it did not.
    """

    videos: int
    skipped: int
    frames: int
    failed: dict[str, str]
    interrupted: bool
    stopped: bool = False
    again: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    cut_off: str = ""


@dataclass(frozen=True)
class Here:
    """Runs videos on this machine, `jobs` at a time, each of which opens the model once; a `RunAll`."""

    open_stream: Callable[[], SaliencyStream]
    jobs: int = 1

    def __call__(
        self, videos: Sequence[FrameFolder], work: VideoWork, told: Told, stop: threading.Event
    ) -> Iterator[tuple[FrameFolder, Outcome]]:
        """See `RunAll`."""
        return run_jobs(videos, self.open_stream, lambda video, stream: work(video, stream, told, stop), self.jobs)


def run_dataset(
    videos: Sequence[FrameFolder],
    run_all: RunAll,
    work: VideoWork | None = None,
    *,
    strict: bool = False,
    stop: threading.Event | None = None,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> DatasetSummary:
    """Writes the map of every frame as the published code does, stretched to 0..255 per frame, and sums up.

    Maps are as published, and made anew, unless `work` says otherwise. With `strict` the first video that fails ends
    the run; `stop`, once set, ends it after the frames that are being processed. `progress` is called with the numbers
    of videos and frames done since the last call; frames that are to be done again, as their worker died, are taken
    back. `notify` is called with a sentence if a video with all its maps is run again.

    Raises:
        SalemaError: see `RunAll`, if that is so before any video is done.
    """
    work, stop, progress = work or VideoWork(), stop or threading.Event(), progress or (lambda *_: None)
    results, told, is_stopped, cut_off = list[tuple[str, Outcome]](), _Told(progress, notify), False, list[str]()
    for video, result in _until_cut_off(run_all(videos, work, told, stop), cut_off):
        results.append((video.name, result))
        if result == "skipped":
            progress(1, len(video.frames))
        elif isinstance(result, Summary) and result.ended_by is None:
            progress(1, 0)
        if strict and _failure(result) is not None and not stop.is_set():
            is_stopped = True
            stop.set()
    is_interrupted = stop.is_set() and not is_stopped
    summary = _summed_up(results, told, len(videos), is_interrupted=is_interrupted, is_stopped=is_stopped)
    return replace(summary, cut_off="".join(cut_off))


def _until_cut_off(
    ended: Iterator[tuple[FrameFolder, Outcome]], cut_off: list[str]
) -> Iterator[tuple[FrameFolder, Outcome]]:
    """Yields what has ended; an error after the first one ends that, and is kept, so that the others are summed up."""
    has_begun = False
    try:
        for each in ended:
            has_begun = True
            yield each
    except SalemaError as error:
        if not has_begun:
            raise
        cut_off.append(str(error))


class _Told:
    """See `Told`."""

    def __init__(self, progress: Callable[[int, int], None], notify: Callable[[str], None]) -> None:
        self._progress, self.note, self.again = progress, notify, Again("maps", notify)

    def frames(self, count: int) -> None:
        self._progress(0, count)


def _failure(result: Outcome) -> str | None:
    if isinstance(result, Summary):
        return result.error
    return str(result) if isinstance(result, Exception) else None


def _summed_up(
    results: Sequence[tuple[str, Outcome]], told: _Told, count: int, *, is_interrupted: bool, is_stopped: bool
) -> DatasetSummary:
    failed = {name: why for name, result in results if (why := _failure(result)) is not None}
    runs = [result for _, result in results if isinstance(result, Summary) and result.error is None]
    whole = [run for run in runs if run.ended_by is None]
    skipped = sum(result == "skipped" for _, result in results)
    is_interrupted = is_interrupted and len(whole) + skipped + len(failed) < count
    frames, notes = sum(run.frames for run in runs), tuple(note for run in whole for note in run.notes)
    again = told.again.reasons
    return DatasetSummary(len(whole), skipped, frames, failed, is_interrupted, is_stopped, again, notes)


@dataclass(frozen=True)
class VideoWork:
    """How each video is run, unless its maps are there already.

    Attributes:
        resume: skip a video if all its maps are whole and its `salema.json` names the same frames and model.
        map_size: one of `MAP_SIZES`: `network`, as published, or each frame's own.
    """

    resume: bool = False
    map_size: MapSize = "network"

    def __call__(self, video: FrameFolder, stream: SaliencyStream, told: Told, stop: threading.Event) -> Outcome:
        """Runs it until `stop` is set."""
        if self.resume and not stop.is_set() and is_finished(video):
            differs = difference(stream, video.source, Selection(), self._outputs(video), RunOptions())
            if not differs:
                return "skipped"
            told.again(video.name, differs)

        def run(local: FrameFolder) -> Summary | None:
            return run_source(
                *(stream, local.source, self._outputs(local), Selection(), RunOptions()),
                stop=stop,
                progress=told.frames,
                notify=told.note,
            )

        return None if stop.is_set() else run_at_home(video, run)

    def _outputs(self, video: FrameFolder) -> Outputs:
        return Outputs(maps=video.folder, map_size=self.map_size, map_name=video.map_name)


def is_finished(video: FrameFolder) -> bool:
    """Whether every map of a video exists and ends as a PNG does. What is at a URL was sent whole, or not at all.

    The header of a video file may give a wrong number of frames. A finished run has recorded the right one.
    """
    count = len(video.maps)
    if video.film and (made := read_provenance(video.folder)) is not None and made.complete:
        count = made.frames
    names = [video.map_name(number) for number in range(1, count + 1)]
    if is_remote(video.folder):
        return set(names) <= {path.name for path in video.folder.iterdir()}
    return all(is_whole(video.folder / name) for name in names)
