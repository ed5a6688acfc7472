"""Maps for every video of a dataset: resumable, several at a time, one failure not the end of the others."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from salema.runtime.errors import ModelError, SalemaError, VideoError
from salema.runtime.files import make_folder, write_bytes
from salema.runtime.postprocess import to_grey

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
    streams, failed, done, frames = threading.local(), dict[str, str](), 0, 0
    opened: list[SaliencyStream] = [open_stream()]  # a model that can't be opened is one error, not one a video
    spare, lock = list(opened), threading.Lock()

    def run(video: FrameFolder) -> int:
        if not hasattr(streams, "own"):
            with lock:
                streams.own = spare.pop() if spare else open_stream()
                opened.append(streams.own)
        return run_video(video, streams.own, stop, progress)

    try:
        with ThreadPoolExecutor(jobs, "video") as pool:
            futures = {pool.submit(run, video): video for video in waiting}
            for future in as_completed(futures):
                video = futures[future]
                try:
                    written = future.result()
                except (SalemaError, OSError) as error:
                    failed[video.name] = str(error)
                    continue
                frames += written
                done += written == len(video.frames)
                if progress and written == len(video.frames):
                    progress(1, 0)
    finally:
        for stream in {id(stream): stream for stream in opened}.values():
            stream.close()
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
    for count, (path, target) in enumerate(zip(video.frames, video.maps, strict=True)):
        if stop.is_set():
            return count
        saliency = stream.step(read_image(path))
        if not np.isfinite(saliency).all():
            raise ModelError(f"{path}: the model gave NaN or infinity for this frame")
        write_bytes(target, cv2.imencode(".png", to_grey(saliency))[1].tobytes())
        if progress:
            progress(0, 1)
    return len(video.frames)


def read_image(path: Path) -> np.typing.NDArray[np.uint8]:
    """Reads an image as uint8 BGR `(h, w, 3)`; grey becomes BGR, and transparency is left out.

    Raises:
        VideoError: it is none, or damaged.
    """
    data = np.frombuffer(path.read_bytes(), np.uint8)  # imread takes no name that is not in the system's encoding
    image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    if image is None:
        raise VideoError(f"{path}: can't be read as an image")
    return image.astype(np.uint8, copy=False)


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
