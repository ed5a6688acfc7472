"""Scores of videos and of a dataset, and their means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from salema.benchmarks.metrics.protocols import METRICS, Mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]


@dataclass(frozen=True)
class VideoScores:
    """Scores of one video.

    Attributes:
        name: the video's.
        frames: names of the frames that were scored.
        scores: float64 `(frames, metrics)` in the order of `METRICS`, NaN where one is not defined.
        missing: frames of the ground truth that had no map.
        extra: maps that belong to no frame.
        unshared: frames left out because another model that it is compared with has no map of them.
        failed: frames left out because a file could not be read.
    """

    name: str
    frames: tuple[str, ...]
    scores: Scores
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    unshared: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether every frame of the ground truth was scored."""
        return not (self.missing or self.unshared or self.failed)

    @property
    def means(self) -> Scores:
        """Means over the frames, `(metrics,)`."""
        return mean_known(self.scores)


@dataclass(frozen=True)
class DatasetScores:
    """Scores of one model on a dataset.

    Attributes:
        label: the model's name.
        videos: of each video that was scored, by `video_key`.
        without_truth: videos with maps and no ground truth: skipped.
        without_maps: videos of the ground truth with no maps: skipped.
        unshared: videos left out with maps of which none fits a frame, or a frame that the other model has too.
        failed: why a file could not be read, by the names of video and frame; of any model, or of the ground truth.
        made_by: what made the maps, a sentence each; empty if that is not known.
        few_others: how many frames shuffled AUC drew from, if fewer than the protocol takes.
    """

    label: str
    videos: dict[str, VideoScores]
    without_truth: tuple[str, ...]
    without_maps: tuple[str, ...]
    unshared: tuple[str, ...] = ()
    few_others: int | None = None
    made_by: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)

    def mean(self, over: Mean) -> Scores:
        """Means over all frames, or over the videos' means, `(metrics,)`."""
        videos = self.videos.values()
        return mean_known(np.concatenate([video.scores if over == "frames" else video.means[None] for video in videos]))

    def unscored(self) -> dict[str, int]:
        """Returns how many frames have no score, by metric; without those where none is missing."""
        gone = np.isnan(np.concatenate([video.scores for video in self.videos.values()])).sum(axis=0)
        return {name: int(count) for name, count in zip(METRICS, gone, strict=True) if count}


def mean_known(scores: Scores) -> Scores:
    """Returns the means `(metrics,)` of `(n, metrics)` over what is not NaN; NaN where all is."""
    known = ~np.isnan(scores)
    counts = known.sum(axis=0)
    sums = np.where(known, scores, 0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
