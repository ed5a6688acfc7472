"""Maps for every video of a dataset: resumable, several at a time, one failure not the end of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from salema.runtime.output.map_size import MapSize
from salema.runtime.output.outputs import Outputs
from salema.runtime.output.provenance import NAME, read_provenance
from salema.runtime.run.pipeline import run_provenance
from salema.runtime.run.stages import RunOptions
from salema.runtime.run.summary import Summary
from salema.runtime.run.videos import run_jobs, run_source
from salema.runtime.sources.selection import Selection

if TYPE_CHECKING:
    from salema.runtime.run.dataset_layouts import FrameFolder
    from salema.runtime.stream import SaliencyStream

_PNG_END = b"IEND\xaeB\x60\x82"


@dataclass(frozen=True)
class DatasetSummary:
    """What a run over a dataset did.

    Attributes:
        videos: videos that were run to their end.
        skipped: videos that were finished before, by the same model.
        frames: maps that were written.
        failed: what went wrong, by the video's name.
        interrupted: whether it was ended from outside; videos under way are left unfinished.
        stopped: whether a failure ended it, as was asked for; the same goes for videos under way.
        again: with `--resume`, why videos that had all their maps were run again, by the video's name.
        notes: what a user should know besides.
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
    """Writes the map of every frame, as the published code does: stretched to 0..255 per frame, of network size.

    Args:
        videos: what to run.
        open_stream: opens the model; each job has one of its own, and each video starts anew.
        jobs: videos at a time.
        resume: skip videos of which every map is there and whole, and made of the same frames by the same model, as the
            `salema.json` beside them tells.
        map_size: one of `MAP_SIZES`: the published one, or each frame's own.
        strict: whether the first video that fails ends the run.
        stop: ends the run after the frames under way, once it is set.
        progress: takes the videos and frames that were done since it was called last.
        notify: takes a sentence where maps that are there can't be believed.

    Raises:
        SalemaError: the model can't be opened.
    """
    work = _Work(resume, map_size, stop or threading.Event(), progress or (lambda *_: None), notify)
    failed, notes = dict[str, str](), list[str]()
    done = skipped = frames = 0
    is_stopped = False
    for video, result in run_jobs(videos, open_stream, work, jobs):
        if result is None:
            continue
        if result == "skipped":
            skipped += 1
            continue
        if isinstance(result, Exception) or result.error:
            failed[video.name] = str(result if isinstance(result, Exception) else result.error)
            if strict and not work.stop.is_set():
                is_stopped = True
                work.stop.set()
            continue
        frames += result.frames
        if result.ended_by is None:
            done += 1
            notes += result.notes
            work.progress(1, 0)
    is_interrupted = work.stop.is_set() and not is_stopped and done + skipped + len(failed) < len(videos)
    return DatasetSummary(done, skipped, frames, failed, is_interrupted, is_stopped, work.again, tuple(notes))


@dataclass
class _Work:
    """Runs a video, or leaves it as it is."""

    resume: bool
    map_size: MapSize
    stop: threading.Event
    progress: Callable[[int, int], None]
    notify: Callable[[str], None]
    again: dict[str, str] = field(default_factory=dict)

    def __call__(self, video: FrameFolder, stream: SaliencyStream) -> Summary | Literal["skipped"] | None:
        """Returns what was done; None if a stop came first."""
        outputs = Outputs(maps=video.folder, map_size=self.map_size, map_name=video.map_name)
        if self.resume and not self.stop.is_set() and is_finished(video):
            differs = _made_otherwise(video, stream, outputs)
            if not differs:
                self.progress(1, len(video.frames))
                return "skipped"
            if differs not in self.again.values():  # of many videos it is the same
                self.notify(f"{video.name} has all its maps, but {differs}; it is run again, as are others like it")
            self.again[video.name] = differs
        return run_source(
            *(stream, video.source, outputs, Selection(), RunOptions()),
            stop=self.stop,
            progress=lambda frames: self.progress(0, frames),
            notify=self.notify,
        )


def _made_otherwise(video: FrameFolder, stream: SaliencyStream, outputs: Outputs) -> str:
    """Returns why the maps that are there are not those of this model, or nothing."""
    before = read_provenance(video.folder)
    if before is None:
        return f"no {NAME} tells what made them"
    count = len(video.frames)
    now = run_provenance(
        *(stream, video.source, Selection(), outputs, RunOptions()), frames=count, frames_expected=count
    )
    return before.differs_from(now)


def is_finished(video: FrameFolder) -> bool:
    """Whether every map of a video is there, and whole: a PNG that ends as one.

    How many a video file has is known once it was read to its end: the header may say more.
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
