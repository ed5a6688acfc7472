"""What lies between two models' scores: differences, and how far chance could account for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from salema.benchmarks.fixations import seeded
from salema.benchmarks.protocols import METRICS
from salema.benchmarks.scoring import mean_known
from salema.runtime.errors import MapError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salema.benchmarks.protocols import Mean
    from salema.benchmarks.scoring import DatasetScores

RESAMPLES = 10_000
LEVEL = 0.95
_ROWS = 500  # resamples at a time, for memory's sake


@dataclass(frozen=True)
class Difference:
    """How one metric differs: the second model's mean less the first's.

    Attributes:
        mean: None where neither frame nor video has the score of both.
        low: lower end of the 95 % interval; None with fewer than two videos.
        high: its upper end.
        videos: how many videos have the score of both.
    """

    mean: float | None
    low: float | None
    high: float | None
    videos: int


def compare_scores(first: DatasetScores, second: DatasetScores, over: Mean, seed: int = 0) -> dict[str, Difference]:
    """Compares two models, metric by metric, on the frames that both have.

    The interval is a paired bootstrap's: videos are drawn with replacement, 10 000 times, and each brings the
    differences of its frames; frames of a video resemble each other too much to be drawn one by one.

    Args:
        first: what it is compared to.
        second: whose scores come in as they are.
        over: whether means are over frames, or over videos.
        seed: of the drawing.

    Raises:
        MapError: there is no frame that both have.
    """
    differences = frame_differences(first, second)
    if not differences:
        raise MapError(f"{second.label}: has no frame in common with {first.label}; compare maps of the same frames")
    known = np.array([(~np.isnan(rows)).sum(axis=0) for rows in differences.values()])
    sums = np.array([np.nansum(rows, axis=0) for rows in differences.values()])
    if over == "videos":
        sums, known = sums / np.maximum(known, 1), np.minimum(known, 1)
    rng = seeded(seed, "bootstrap")
    return {
        name: _interval(sums[has, column], known[has, column].astype(np.float64), rng)
        for column, name in enumerate(METRICS)
        for has in [known[:, column] > 0]
    }


def frame_differences(first: DatasetScores, second: DatasetScores) -> dict[str, NDArray[np.float64]]:
    """Returns the differences `(frames, metrics)` of each video on the frames that both have, by `video_key`."""
    found = {}
    for key in first.videos.keys() & second.videos.keys():
        a, b = first.videos[key], second.videos[key]
        rows = {name: row for row, name in enumerate(a.frames)}
        pairs = [(rows[name], row) for row, name in enumerate(b.frames) if name in rows]
        if pairs:
            ours, theirs = map(list, zip(*pairs, strict=True))
            found[key] = b.scores[theirs] - a.scores[ours]
    return {key: found[key] for key in first.videos if key in found}


def video_differences(first: DatasetScores, second: DatasetScores) -> dict[str, NDArray[np.float64]]:
    """Returns the mean differences `(metrics,)` of each video, by its name."""
    return {first.videos[key].name: mean_known(rows) for key, rows in frame_differences(first, second).items()}


def _interval(sums: NDArray[np.float64], counts: NDArray[np.float64], rng: np.random.Generator) -> Difference:
    videos = len(sums)
    if videos == 0:
        return Difference(None, None, None, 0)
    mean = float(sums.sum() / counts.sum())
    if videos == 1:
        return Difference(mean, None, None, 1)
    means = []
    for _ in range(RESAMPLES // _ROWS):
        times = rng.multinomial(videos, np.full(videos, 1 / videos), _ROWS)
        means.append((times @ sums) / (times @ counts))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(mean, float(low), float(high), videos)
