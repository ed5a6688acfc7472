"""What a lower precision changes on natural clips, whose fixations nobody knows: its maps against those of FP32."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.maps.fixations import seeded
from salema.benchmarks.scores.bootstrap import interval
from salema.runtime import load
from salema.runtime.metrics import cc, sim
from salema.runtime.video.video_reader import VideoReader

FRAMES = 120  # of each clip, from its start
BLOCK = 30  # frames that are drawn together for the intervals: frames in a row are alike
SIMILARITIES = {"cc": cc, "sim": sim}


def run_clips(model: Path, backend: str, clips: Sequence[Path]) -> list[NDArray[np.float32]]:
    """Runs a model over the first frames of clips; returns the raw maps of each, `(T, H, W)`.

    Raises:
        SalemaError: the model can't be run, or a clip can't be read.
    """
    with load(model, backend=backend) as stream:
        found = []
        for clip in clips:
            stream.reset()
            with VideoReader(clip) as reader:
                found.append(np.stack([stream.step(frame.image_bgr) for frame in islice(reader, FRAMES)]))
    return found


def compare_clips(
    maps: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]]
) -> dict[str, dict[str, float]]:
    """Compares the maps of clips, frame by frame.

    Returns:
        Of `cc` and `sim` the mean over all frames, its 95 % interval (blocks of consecutive frames are drawn), and the
        least of a frame; of `difference`, between the values of raw maps, the mean of the frames' greatest, the
        interval, and the greatest of all.
    """
    pairs = [list(zip(own, wanted, strict=True)) for own, wanted in zip(maps, expected, strict=True)]
    rows = {name: [np.array([take(*pair) for pair in clip]) for clip in pairs] for name, take in SIMILARITIES.items()}
    found = {name: _summary(clips) | {"least": float(min(map(np.min, clips)))} for name, clips in rows.items()}
    away = [np.array([np.abs(own - wanted).max() for own, wanted in clip]) for clip in pairs]
    return found | {"difference": _summary(away) | {"greatest": float(max(map(np.max, away)))}}


def _summary(clips: Sequence[NDArray[Any]]) -> dict[str, float]:
    blocks = [values[first : first + BLOCK] for values in clips for first in range(0, len(values), BLOCK)]
    sums, counts = np.array([block.sum() for block in blocks], float), np.array([len(block) for block in blocks])
    low, high = interval(sums, counts, seeded(0, "bootstrap"))
    return {"mean": float(sums.sum() / counts.sum()), "low": low, "high": high}


def clips_table(forms: dict[str, Any]) -> str:
    """Returns a table of `docs/models.md`: means over frames, 95 % intervals in brackets; a refusal as such."""
    rows = ["| | CC | least CC | SIM | greatest difference |", "|---|---|---|---|---|"]
    for form, found in forms.items():
        if "refused" in found:
            rows.append(f"| {form} | refused | | | |")
            continue
        similar, least = (_cell(found["cc"]), f"{found['cc']['least']:.4f}")
        rows.append(f"| {form} | {similar} | {least} | {_cell(found['sim'])} | {found['difference']['greatest']:.4f} |")
    return "\n".join(rows)


def _cell(score: dict[str, float]) -> str:
    return f"{score['mean']:.5f} ({score['low']:.5f}-{score['high']:.5f})"
