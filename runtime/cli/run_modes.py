"""What `salema-run` does: runs sources or a dataset, or recovers the files of killed runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from salema.runtime.cli.frame_bar import FrameBar
from salema.runtime.cli.opening import Announced, Opening
from salema.runtime.cli.run_report import Report, report_dataset
from salema.runtime.cpu import threads_each
from salema.runtime.errors import OutputError
from salema.runtime.files.remote_path import is_remote
from salema.runtime.output.map_size import MapSize, check_map_size
from salema.runtime.output.outputs import Outputs
from salema.runtime.output.recovery import recover_folder
from salema.runtime.run.dataset import Here, RunAll, VideoWork, run_dataset
from salema.runtime.run.dataset_layouts import FrameFolder, check_dataset, check_targets, list_videos
from salema.runtime.run.resuming import never_finished
from salema.runtime.run.stages import RunOptions
from salema.runtime.run.videos import run_sources
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import Source
from salema.runtime.stopping import stop_requested
from salema.runtime.telling import show, tell


@dataclass(frozen=True)
class DatasetRun:
    """Which videos of a dataset are run and how, and where their maps go; see `list_videos` and `run_dataset`."""

    dataset: str
    source: Path
    target: Path
    naming: str
    start: int | None
    end: int | None
    resume: bool
    map_size: MapSize
    strict: bool
    as_json: bool

    def check(self) -> None:
        """Refuses what is wrong whatever the folders hold."""
        check_dataset(self.dataset, naming=self.naming, start=self.start, end=self.end)
        check_map_size(self.map_size)

    def videos(self, weights: str) -> list[FrameFolder]:
        """Lists the videos.

        Raises:
            VideoError: there are none.
            UsageError: see `check_targets`.
        """
        where = self.dataset, self.source, self.target, weights
        videos = list_videos(*where, naming=self.naming, start=self.start, end=self.end)
        check_targets(videos)
        return videos

    def run(self, videos: Sequence[FrameFolder], make: Callable[[FrameBar], RunAll]) -> None:
        """Runs videos by what is made for the progress bar, and prints the result.

        Raises:
            SalemaError: see `run_dataset`.
            SystemExit: a video failed, or the run was interrupted.
        """
        is_known = not any(video.film and is_remote(video.film) for video in videos)
        frames = sum(len(video.frames) for video in videos) if is_known else None
        with stop_requested() as stop, FrameBar(len(videos), frames) as bar:
            summary = run_dataset(
                *(videos, make(bar), VideoWork(self.resume, self.map_size)),
                strict=self.strict,
                stop=stop,
                progress=lambda more_videos, more_frames: bar.advance(more_frames, more_videos),
                notify=bar.note,
            )
        report_dataset(summary, len(videos), self.target, as_json=self.as_json)


def recover_outputs(folder: Path) -> None:
    """Recovers the files of killed runs in a folder and its subfolders, and prints them.

    Raises:
        UsageError: there is no such folder.
        SystemExit: a file could not be recovered.
    """
    notes = recover_folder(folder)
    failures = [note for note in notes if isinstance(note, OutputError)]
    for note in notes or [f"{folder}: killed runs have left nothing here"]:
        if isinstance(note, str):
            show(note)
    for failure in failures:
        tell(f"salema-run: {failure}")
    if failures:
        raise SystemExit(1)


def run_over_sources(
    planned: list[tuple[Source, Outputs]],
    selection: Selection,
    options: RunOptions,
    opening: Opening,
    *,
    jobs: int,
    strict: bool,
    as_json: bool,
    resume: bool,
) -> None:
    """Runs sources, and prints the result of each; with `strict` the first failure stops the run.

    Raises:
        SalemaError: see `run_sources`; or the only source failed.
        SystemExit: a source failed, or the run was interrupted.
    """
    can_resume = selection.loop > 0 and any(one.repeatable and not never_finished(outputs) for one, outputs in planned)
    to_stderr = any(outputs.csv_to_stdout for _, outputs in planned)
    file = sys.stderr if to_stderr else sys.stdout
    report = Report(len(planned), as_json=as_json, file=file, can_resume=can_resume)
    opening = _shared(opening, jobs, len(planned))
    with Announced(opening) as open_stream, stop_requested() as stop, FrameBar(len(planned)) as bar:
        for source, outputs, result in run_sources(
            planned,
            open_stream,
            selection,
            options,
            jobs=jobs,
            stop=stop,
            begun=bar.begun,
            progress=bar.advance,
            notify=bar.note,
            resume=resume,
        ):
            bar.advance(0, 1)
            report.add(source, outputs, result, open_stream.description)
            if strict and report.has_failed:
                stop.set()  # running sources are finished early, and their outputs kept
    report.exit(strict=strict)


def _shared(opening: Opening, jobs: int, videos: int | None = None) -> Opening:
    """Divides the cores among the networks that will be open at a time, unless the user gave the threads of each."""
    networks = 1 if opening.max_wait_ms is not None else min(jobs, videos or jobs)
    return replace(opening, threads=threads_each(opening.threads, networks))


def run_over_dataset(asked: DatasetRun, opening: Opening, jobs: int) -> None:
    """Writes the maps of a dataset, and prints the result.

    Raises:
        SalemaError: an option is wrong, there is no video to run, or the model can't be opened.
        SystemExit: see `DatasetRun.run`.
    """
    asked.check()
    with Announced(_shared(opening, jobs)) as open_stream:
        videos = asked.videos(open_stream.ahead().weights)
        if is_remote(asked.target):
            asked.target.check_writable()
        asked.run(videos, lambda _: Here(open_stream, jobs))
