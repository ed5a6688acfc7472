"""What the published evaluation script does, written anew: the peer of `salema-eval` in `eval_speed.py`.

`python -m salema.benchmarks.published_loop PRED TRUTH VIDEO`: PRED/<video>/*.png against TRUTH/<video>/{maps,fixation}.
One process, one frame after the other, each metric as `slow_metrics.py` has it. What the published script does besides
is left out in its favour: it imports PyTorch and scikit-image, and starts four processes with joblib.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from salema.benchmarks import slow_metrics as slow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[Any]

OTHER_VIDEOS = 40
JITTER = 1e-7


def main() -> None:
    """Scores one video and prints its means."""
    pred, truth, video = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    rng = np.random.default_rng(0)
    others = average_of_others(truth, video, rng)
    folders = (truth / video / "maps", truth / video / "fixation", pred / video)
    names = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    rows = []
    for frame in zip(*names, strict=True):
        density, fixation, saliency = (_read(folder / name) for folder, name in zip(folders, frame, strict=True))
        rows.append(score(saliency, density, fixation, others, rng))
    print(*(f"{mean:.4f}" for mean in np.mean(rows, axis=0)))


def average_of_others(truth: Path, video: str, rng: np.random.Generator) -> Map:
    """Averages one fixation map of each of 40 other videos; uint8."""
    videos = sorted({path.name for path in truth.iterdir()} - {video})
    total: Any = 0
    for name in rng.choice(videos, OTHER_VIDEOS, replace=False):
        folder = truth / name / "fixation"
        total = total + _read(folder / rng.choice([path.name for path in folder.iterdir()])).astype(np.float32)
    averaged: Map = (total / OTHER_VIDEOS).astype(np.uint8)
    return averaged


def score(saliency: Map, density: Map, fixation: Map, others: Map, rng: np.random.Generator) -> list[float]:
    """Scores a frame: AUC-Judd, s-AUC, NSS, CC, SIM; all maps uint8, the three of the ground truth of one size."""
    saliency = cv2.resize(saliency, density.shape[::-1], interpolation=cv2.INTER_LINEAR)
    saliency, density, fixation, others = (
        cv2.resize(image, (0, 0), fx=0.5, fy=0.5).astype(np.float32) for image in (saliency, density, fixation, others)
    )
    fixated, elsewhere = fixation > 0.5, others > 0.5  # noqa: PLR2004 - the published threshold
    saliency += rng.random(saliency.shape) * JITTER
    return [
        slow.auc_judd(saliency, fixated),
        slow.shuffled_auc(saliency, fixated, elsewhere, rng),
        slow.nss(saliency, fixated),
        slow.cc(saliency, density),
        slow.sim(saliency, density),
    ]


def _read(path: Path) -> Map:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))


if __name__ == "__main__":
    main()
