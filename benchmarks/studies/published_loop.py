"""The work of the published evaluation script, written anew: the peer of `salema-eval` in `eval_speed.py`.

`python -m salema.benchmarks.studies.published_loop PRED TRUTH VIDEO` scores PRED/<video>/*.png against
TRUTH/<video>/{maps,fixation}.
One process takes one frame after the other, in float32, threshold by threshold, and s-AUC split by split, with NumPy's
old generator. First it imports what the published script imports, PyTorch included, as far as that is installed;
`--lean` leaves out imports that nothing uses. The four processes that joblib starts there are left out.
Maps are halved first, as for the published table; `--whole` leaves them at the size of the ground truth.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[Any]

OTHER_VIDEOS = 40
JITTER = 1e-7
HALF = 0.5
SPLITS, STEP = 100, 0.1
LEAN, WHOLE = "--lean", "--whole"
IMPORTS = ("torch", "PIL.Image", "skimage.exposure", "skimage.transform", "IPython", "joblib")
_trapezoid: Any = getattr(np, "trapezoid" if hasattr(np, "trapezoid") else "trapz")  # before NumPy 2


def main() -> None:
    """Scores one video and prints its means."""
    if LEAN not in sys.argv:
        import_as_published()
    given = [argument for argument in sys.argv[1:] if argument not in {LEAN, WHOLE}]
    scale = 1 if WHOLE in sys.argv else HALF
    pred, truth, video = Path(given[0]), Path(given[1]), given[2]
    rng = np.random.RandomState(0)
    others = average_of_others(truth, video, rng)
    folders = (truth / video / "maps", truth / video / "fixation", pred / video)
    names = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    rows = []
    for frame in zip(*names, strict=True):
        density, fixation, saliency = (_read(folder / name) for folder, name in zip(folders, frame, strict=True))
        rows.append(score((saliency, density, fixation, others), rng, scale))
    print(*(f"{mean:.4f}" for mean in np.mean(rows, axis=0)))


def import_as_published(names: Iterable[str] = IMPORTS) -> list[str]:
    """Imports those that are installed; returns the names of the others."""
    missing = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:  # noqa: PERF203 - a handful
            missing.append(name)
    return missing


def average_of_others(truth: Path, video: str, rng: np.random.RandomState) -> Map:
    """Returns the mean of one fixation map from each of 40 other videos, uint8."""
    videos = sorted({path.name for path in truth.iterdir()} - {video})
    total: Any = 0
    for name in rng.choice(videos, OTHER_VIDEOS, replace=False):
        folder = truth / name / "fixation"
        total = total + _read(folder / rng.choice([path.name for path in folder.iterdir()])).astype(np.float32)
    averaged: Map = (total / OTHER_VIDEOS).astype(np.uint8)
    return averaged


def score(maps: tuple[Map, Map, Map, Map], rng: np.random.RandomState, scale: float = HALF) -> list[float]:
    """Returns a frame's AUC-Judd, s-AUC, NSS, CC, SIM.

    `maps` are uint8: saliency, and three of one size: density, fixations, those of others. They are scaled first.
    """
    saliency = cv2.resize(maps[0], maps[1].shape[::-1], interpolation=cv2.INTER_LINEAR)
    saliency, density, fixation, others = (
        cv2.resize(image, (0, 0), fx=scale, fy=scale).astype(np.float32) for image in (saliency, *maps[1:])
    )
    fixated, elsewhere = fixation > 0.5, others > 0.5  # noqa: PLR2004 - the published threshold
    saliency += rng.rand(*saliency.shape) * JITTER
    return [
        _auc_judd(saliency, fixated),
        _shuffled_auc(saliency, fixated, elsewhere, rng),
        float(np.mean(_standard(saliency)[fixated])),
        float(np.corrcoef(_standard(saliency).ravel(), _standard(density).ravel())[0, 1]),
        float(np.sum(np.minimum(_shares(saliency), _shares(density)))),
    ]


def _auc_judd(saliency: Map, fixated: Map) -> float:
    flat = _stretched(saliency).ravel()
    thresholds = sorted(flat[fixated.ravel()], reverse=True)
    hits, alarms = _curves(len(thresholds))
    for above, threshold in enumerate(thresholds, 1):
        hits[above] = above / len(thresholds)
        alarms[above] = (np.sum(flat >= threshold) - above) / (len(flat) - len(thresholds))
    return float(_trapezoid(hits, alarms))


def _shuffled_auc(saliency: Map, fixated: Map, elsewhere: Map, rng: np.random.RandomState) -> float:
    flat = _stretched(saliency).ravel()
    positives, pool = flat[fixated.ravel()], np.flatnonzero(elsewhere)
    # For each split all pixels fixated elsewhere are shuffled, and the first ones are taken.
    drawn = [rng.permutation(row)[: len(positives)] for row in np.tile(np.arange(len(pool)), (SPLITS, 1))]
    splits = flat[pool[np.transpose(drawn)]]
    return float(np.mean([_split_area(positives, splits, split) for split in range(SPLITS)]))


def _split_area(positives: Map, splits: Map, split: int) -> float:
    thresholds = np.r_[0 : np.max(np.r_[positives, splits[:, split]]) : STEP][::-1]
    hits, alarms = _curves(len(thresholds))
    for place, threshold in enumerate(thresholds, 1):
        hits[place] = np.sum(positives >= threshold) / float(len(positives))
        alarms[place] = np.sum(splits[:, split] >= threshold) / float(len(positives))
    return float(_trapezoid(hits, alarms))


def _curves(points: int) -> tuple[Map, Map]:
    """Returns hits and false alarms with their ends (0, 0) and (1, 1), to be filled between."""
    hits, alarms = np.zeros(points + 2), np.zeros(points + 2)
    hits[-1] = alarms[-1] = 1
    return hits, alarms


def _shares(values: Map) -> Map:
    stretched = _stretched(values)
    return np.asarray(stretched / np.sum(stretched))


def _stretched(values: Map) -> Map:
    return np.asarray((values - np.min(values)) / (np.max(values) - np.min(values)))


def _standard(values: Map) -> Map:
    return np.asarray((values - np.mean(values)) / np.std(values))


def _read(path: Path) -> Map:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))


if __name__ == "__main__":
    main()
