"""A long run: memory does not grow, and the last maps are those of a fresh run."""

import gc
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from videos import write_clip

from salema.runtime import load
from salema.runtime.output.outputs import Outputs
from salema.runtime.postprocess import to_grey
from salema.runtime.run.pipeline import process_video
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.source import find_sources

FRAMES, LAST, REMEMBERED = 3_000, 5, 300
SETTLED, LEAK_BYTES = 1_000, 2_000  # a frame; the least that is kept of one, its map as a PNG file, has more


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class Video:
    """Frames made on the way, so that the test itself holds none."""

    shape = (FRAMES, 32, 48, 3)

    def __iter__(self):
        for index in range(FRAMES):
            frame = np.zeros((32, 48, 3), np.uint8)
            frame[index % 32] = (index % 255, index // 7 % 255, 200)
            frame[:, index // 3 % 48] += 40
            yield frame


@pytest.mark.slow
def test_three_thousand_frames(exported, tmp_path):
    folder = exported(imgsz_hw=(32, 48))
    clip = write_clip(tmp_path / "long.mp4", Video())
    seen, counted = [], itertools.count()

    def progress(_):
        if next(counted) % 500 == 0:
            gc.collect()
            seen.append(resident_bytes())

    with load(folder) as stream, Playback(find_sources([str(clip)])[0]) as source:
        assert source.frame_count == FRAMES
        summary = process_video(stream, source, Outputs(maps=tmp_path / "maps"), progress=progress)
    assert summary.frames == FRAMES
    settled, *after = seen[SETTLED // 500 :]
    assert max(after) - settled < LEAK_BYTES * (FRAMES - SETTLED), [round(size / 1e6) for size in seen]

    # An average at 0.1 has forgotten what was 300 frames ago: 0.9 ** 300 is 2e-14.
    cap = cv2.VideoCapture(str(clip))
    frames = [frame for index in range(FRAMES) if (frame := cap.read()[1]) is not None and index >= FRAMES - REMEMBERED]
    cap.release()
    with load(folder) as stream:
        fresh = [to_grey(stream.step(frame)) for frame in frames]
    assert len(fresh) == REMEMBERED
    for back in range(1, LAST + 1):
        path = tmp_path / f"maps/{FRAMES + 1 - back:04d}.png"
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert np.abs(found.astype(int) - fresh[-back]).max() <= 1
