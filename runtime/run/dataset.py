"""Maps for every video of a dataset: resumable, several at a time, one failure not the end of the others."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from salema.runtime.errors import ModelError, OutputError, SalemaError
from salema.runtime.files.whole_files import make_folder, write_bytes
from salema.runtime.output.map_size import levels_at
from salema.runtime.output.provenance import (
    NAME,
    frames_facts,
    provenance_of,
    read_provenance,
    remove_provenance,
    video_facts,
    write_provenance,
)
from salema.runtime.output.recovery import remove_unfinished
from salema.runtime.run.videos import run_jobs
from salema.runtime.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from salema.runtime.output.map_size import MapSize
    from salema.runtime.output.provenance import Provenance
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
        if isinstance(result, Exception):
            failed[video.name] = str(result)
            if strict and not work.stop.is_set():
                is_stopped = True
                work.stop.set()
            continue
        skipped += result is None
        frames += result or 0
        if result is not None and (result == len(video.frames) or (video.film and not work.stop.is_set())):
            done += 1
            notes += _leftovers(video)
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

    def __call__(self, video: FrameFolder, stream: SaliencyStream) -> int | None:
        """Returns how many maps were written; None where those that are there are to stay."""
        if self.stop.is_set():
            return 0
        if self.resume and is_finished(video):
            differs = _made_otherwise(video, stream, self.map_size)
            if not differs:
                self.progress(1, len(video.frames))
                return None
            if differs not in self.again.values():  # of many videos it is the same
                self.notify(f"{video.name} has all its maps, but {differs}; it is run again, as are others like it")
            self.again[video.name] = differs
        return run_video(video, stream, self.stop, self.progress, self.map_size)


def _made_otherwise(video: FrameFolder, stream: SaliencyStream, map_size: MapSize) -> str:
    """Returns why the maps that are there are not those of this model, or nothing."""
    before = read_provenance(video.maps[0].parent)
    if before is None:
        return f"no {NAME} tells what made them"
    return before.differs_from(_provenance(video, stream, map_size, len(video.frames)))


def _provenance(
    video: FrameFolder, stream: SaliencyStream, map_size: MapSize, frames: int, why: str | None = None
) -> Provenance:
    options = {"normalise": "frame", "map_bits": 8, "map_size": map_size}  # as published, but for the last
    expected = len(video.frames)
    source = video_facts(video.film) if video.film else frames_facts(video.frames)
    return provenance_of(stream, options, source, frames=frames, frames_expected=expected, why_incomplete=why)


def _leftovers(video: FrameFolder) -> list[str]:
    """Says so where maps of another run lie between those of this one."""
    if video.film:  # its header need not tell how many it holds
        return []
    folder, ours = video.maps[0].parent, {path.name for path in video.maps}
    others = sum(path.name not in ours for path in folder.glob("*.png"))
    return [f"{folder} also holds {counted(others, 'PNG file')} that this run did not write"] if others else []


def run_video(
    video: FrameFolder,
    stream: SaliencyStream,
    stop: threading.Event,
    progress: Callable[[int, int], None] | None = None,
    map_size: MapSize = "network",
) -> int:
    """Writes the maps of one video; returns how many.

    Raises:
        VideoError: a frame can't be read.
        ModelError: the model gave NaN or infinity.
        OutputError: a map can't be written.
    """
    stream.reset()
    folder, count, why = video.maps[0].parent, 0, None
    make_folder(folder)
    remove_unfinished(folder)
    try:
        for path, target, image in video.read():
            if stop.is_set():
                why = "interrupted"
                break
            if not count:
                remove_provenance(folder)  # of maps that are about to be others
            saliency = stream.step(image)
            if not np.isfinite(saliency).all():
                raise ModelError(f"{path}: the model gave NaN or infinity for this frame")
            size_hw = saliency.shape if map_size == "network" else image.shape
            levels = levels_at(saliency, (saliency.min(), saliency.max()), (size_hw[0], size_hw[1]))
            write_bytes(target, cv2.imencode(".png", levels)[1].tobytes())
            count += 1
            if progress:
                progress(0, 1)
    except SalemaError as error:
        with suppress(OutputError):  # the disk is full, perhaps
            _tell(video, stream, map_size, count, str(error))
        raise
    _tell(video, stream, map_size, count, why)
    return count


def _tell(video: FrameFolder, stream: SaliencyStream, map_size: MapSize, count: int, why: str | None) -> None:
    if count:
        write_provenance(video.maps[0].parent, _provenance(video, stream, map_size, count, why))


def is_finished(video: FrameFolder) -> bool:
    """Whether every map of a video is there, and whole: a PNG that ends as one.

    How many a video file has is known once it was read to its end: the header may say more.
    """
    maps = video.maps
    if video.film and (made := read_provenance(maps[0].parent)) is not None and made.complete:
        maps = video.maps_of_film(made.frames)
    return all(_is_whole(path) for path in maps)


def _is_whole(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-len(_PNG_END), 2)
            return file.read() == _PNG_END
    except OSError:
        return False
