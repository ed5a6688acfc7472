"""Maps for every video of a dataset: resumable, several at a time, one failure not the end of the others."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from salema.runtime.errors import ModelError
from salema.runtime.files import make_folder, write_bytes
from salema.runtime.jobs import run_jobs
from salema.runtime.postprocess import to_grey
from salema.runtime.recovery import remove_unfinished

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from salema.runtime.datasets import FrameFolder
    from salema.runtime.stream import SaliencyStream

_PNG_END = b"IEND\xaeB\x60\x82"


@dataclass(frozen=True)
class DatasetSummary:
    """What a run over a dataset did.

    Attributes:
        videos: videos that were run to their end.
        skipped: videos that were finished before.
        frames: maps that were written.
        failed: what went wrong, by the video's name.
        interrupted: whether it was ended from outside; videos under way are left unfinished.
    """

    videos: int
    skipped: int
    frames: int
    failed: dict[str, str]
    interrupted: bool


def run_dataset(
    videos: Sequence[FrameFolder],
    open_stream: Callable[[], SaliencyStream],
    *,
    jobs: int = 1,
    resume: bool = False,
    stop: threading.Event | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetSummary:
    """Writes the map of every frame, as the published code does: network size, stretched to 0..255 per frame.

    Args:
        videos: what to run.
        open_stream: opens the model; each job has one of its own, and each video starts anew.
        jobs: videos at a time.
        resume: skip videos of which every map is there and whole.
        stop: ends the run after the frames under way, once it is set.
        progress: takes the videos and frames that were done since it was called last.

    Raises:
        SalemaError: the model can't be opened.
    """
    stop = stop or threading.Event()
    waiting = [video for video in videos if not (resume and is_finished(video))]
    failed, done, frames = dict[str, str](), 0, 0

    def work(video: FrameFolder, stream: SaliencyStream) -> int:
        return run_video(video, stream, stop, progress)

    for video, result in run_jobs(waiting, open_stream, work, jobs):
        if not isinstance(result, int):
            failed[video.name] = str(result)
            continue
        frames += result
        if result == len(video.frames) or (video.film and not stop.is_set()):  # a header may be off by some frames
            done += 1
            if progress:
                progress(1, 0)
    return DatasetSummary(done, len(videos) - len(waiting), frames, failed, stop.is_set())


def run_video(
    video: FrameFolder,
    stream: SaliencyStream,
    stop: threading.Event,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Writes the maps of one video; returns how many.

    Raises:
        VideoError: a frame can't be read.
        ModelError: the model gave NaN or infinity.
        OutputError: a map can't be written.
    """
    stream.reset()
    make_folder(video.maps[0].parent)
    remove_unfinished(video.maps[0].parent)
    count = 0
    for path, target, image in video.read():
        if stop.is_set():
            break
        saliency = stream.step(image)
        if not np.isfinite(saliency).all():
            raise ModelError(f"{path}: the model gave NaN or infinity for this frame")
        write_bytes(target, cv2.imencode(".png", to_grey(saliency))[1].tobytes())
        count += 1
        if progress:
            progress(0, 1)
    return count


def is_finished(video: FrameFolder) -> bool:
    """Whether every map of a video is there, and whole: a PNG that ends as one."""
    return all(_is_whole(path) for path in video.maps)


def _is_whole(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-len(_PNG_END), 2)
            return file.read() == _PNG_END
    except OSError:
        return False
