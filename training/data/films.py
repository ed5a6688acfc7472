"""The frames of video files, by their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from salema.runtime.run.dataset_layouts import FrameFolder
from salema.runtime.video.containers import best_film
from salema.runtime.video.video_reader import VideoReader


def with_all_frames(video: FrameFolder) -> FrameFolder:
    """Returns a video with names for all its frames: those of a film whose header has no number of them are counted.

    Raises:
        VideoError: it can't be read.
    """
    if video.film is None or len(video.frames) > 1:
        return video
    with VideoReader(video.film):  # says in a sentence why it can't be read
        pass
    with av.open(str(video.film)) as container:  # Matroska's header has none
        film = best_film(container)
        assert film is not None  # VideoReader has refused such a file
        count = sum(1 for packet in container.demux(film) if packet.size)
    return replace(video, frames=tuple(video.frame_path(number) for number in range(1, count + 1)))


def film_frames_from(film: Path, start: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yields the frames of a film with their numbers, which count from 0, from `start` on.

    Raises:
        VideoError: it can't be read.
    """
    with VideoReader(film) as first:
        rate, base = first.rate, next(iter(first)).pts  # AVI counts from 1
    with VideoReader(film, start_s=float(start / rate)) as reader:  # decodes from the key frame before it, or all
        for frame in reader:
            number = round((frame.pts - base) * reader.time_base * rate)
            if number >= start:
                yield number, frame.image_bgr
