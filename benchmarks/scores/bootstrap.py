"""The differences between two models' scores, and their confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from salema.benchmarks.maps.fixations import seeded
from salema.benchmarks.metrics.protocols import METRICS, Mean
from salema.benchmarks.scores.results import DatasetScores, mean_known

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95
_FEW = 20  # with fewer videos the interval holds the true difference clearly less often than LEVEL says
_ROWS = 500  # resamples at a time, to save memory


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
    """Compares two models that were scored together, metric by metric.

    The interval is from a paired bootstrap: videos are drawn with replacement, 10 000 times, each with the differences
    of all its frames. Frames are not drawn one by one, as those of one video are alike.

    Args:
        first: scores of the model that is compared to.
        second: scores of the other; a difference is the second's less the first's.
        over: whether means are over frames, or over videos.
        seed: of the random draws.
    """
    differences = frame_differences(first, second)
    known = np.array([(~np.isnan(rows)).sum(axis=0) for rows in differences.values()])
    sums = np.array([np.nansum(rows, axis=0) for rows in differences.values()])
    if over == "videos":
        sums, known = sums / np.maximum(known, 1), np.minimum(known, 1)
    ends = [interval(*_of_metric(sums, known, column), seeded(seed, "bootstrap")) for column in range(len(METRICS))]
    videos = (known > 0).sum(axis=0)
    means = sums.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return {
        name: Difference(
            mean=float(means[column]) if count else None,
            low=ends[column][0] if count > 1 else None,
            high=ends[column][1] if count > 1 else None,
            videos=int(count),
        )
        for column, (name, count) in enumerate(zip(METRICS, videos, strict=True))
    }


def frame_differences(first: DatasetScores, second: DatasetScores) -> dict[str, NDArray[np.float64]]:
    """Returns the differences `(frames, metrics)` of each video, by `video_key`; both are scored on the same frames."""
    return {key: second.videos[key].scores - video.scores for key, video in first.videos.items()}


def video_differences(first: DatasetScores, second: DatasetScores) -> dict[str, NDArray[np.float64]]:
    """Returns the mean differences `(metrics,)` of each video, by its name."""
    return {first.videos[key].name: mean_known(rows) for key, rows in frame_differences(first, second).items()}


def basis(videos: int) -> str:
    """Returns what the intervals of so many videos rest on, in words."""
    if videos < 2:  # noqa: PLR2004 - nothing varies
        return "one video: no interval"
    few = ", which are few: the interval is too narrow" if videos < _FEW else ""
    return f"{RESAMPLES} resamples of {videos} videos{few}"


def _of_metric(
    sums: NDArray[np.float64], counts: NDArray[np.intp], column: int
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Returns one metric's sums and counts `(videos,)`, of the videos that have a score of it."""
    known = counts[:, column] > 0
    return sums[known, column], counts[known, column]


def interval(sums: NDArray[np.float64], counts: NDArray[np.intp], rng: np.random.Generator) -> tuple[float, float]:
    """Returns the interval's ends from each video's sum and count `(videos,)`; NaN for no video."""
    if not len(sums):
        return np.nan, np.nan
    means = []
    for _ in range(RESAMPLES // _ROWS):
        drawn = rng.integers(0, len(sums), (_ROWS, len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
