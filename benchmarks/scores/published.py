"""Published scores of SalEMA and related networks: means on DHF1K's validation videos, SalEMA30's also per video."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import numpy as np

from salema.benchmarks.metrics.protocols import METRICS
from salema.runtime.errors import MapError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salema.benchmarks.scores.results import DatasetScores

FIVE = tuple(METRICS)[:5]
FIRST_VIDEO, LAST_VIDEO = 601, 700
# Linardos et al., "Simple vs complex temporal recurrences for video saliency prediction", BMVC 2019: DHF1K, validation.
ROWS = {
    "SalGAN port": (0.801, 0.652, 1.437, 0.267, 0.192),
    "SalBCE": (0.874, 0.724, 2.047, 0.382, 0.268),
    "SalCLSTM30": (0.887, 0.693, 2.364, 0.435, 0.322),
    "SalEMA30, no extra training": (0.883, 0.734, 2.144, 0.400, 0.276),
    "SalEMA30, fine-tuned": (0.883, 0.685, 2.402, 0.435, 0.349),
    "SalEMA30, dropout": (0.886, 0.690, 2.495, 0.450, 0.360),
    "SalEMA30R": (0.875, 0.670, 2.274, 0.415, 0.339),
}


@dataclass(frozen=True)
class Agreement:
    """How one metric of ours agrees with the published one, over videos.

    Attributes:
        mean_difference: ours less the published.
        largest_difference: the greatest, without its sign.
        correlation: Pearson's; None with fewer than two videos, or where one side does not vary.
        videos: how many were compared.
    """

    mean_difference: float
    largest_difference: float
    correlation: float | None
    videos: int


def published_videos() -> dict[str, NDArray[np.float64]]:
    """Returns the published scores of SalEMA30, `(5,)` in the order of `FIVE`, of the videos "601" to "700"."""
    with as_file(files("salema.benchmarks.scores") / "data/SalEMA30_validation.npy") as path:
        table = np.load(path)
    return {str(FIRST_VIDEO + row): scores for row, scores in enumerate(table)}


def check_published(dataset: str, protocol: str, videos: Iterable[str]) -> None:
    """Checks, before long work, that these videos, by `video_key`, have published scores.

    Raises:
        UsageError: the dataset or the protocol is another.
        MapError: none is a validation video.
    """
    if dataset != "DHF1K":
        raise UsageError(f"--against-published: SalEMA30's scores are those of DHF1K's videos, not {dataset}'s")
    if protocol != "salema":
        raise UsageError(f"--against-published: the published scores are of --protocol salema, not {protocol}")
    if not set(videos) & set(published_videos()):
        raise MapError(
            f"--against-published: none of DHF1K's {FIRST_VIDEO} to {LAST_VIDEO} has a map of every frame; the"
            " published scores are of whole videos"
        )


def published_differences(found: DatasetScores) -> dict[str, NDArray[np.float64]]:
    """Returns our scores less the published ones, `(5,)`, of each validation video that was scored whole."""
    wanted = published_videos()
    return {
        key: video.means[: len(FIVE)] - wanted[key]
        for key, video in found.videos.items()
        if key in wanted and video.is_whole
    }


def in_part(found: DatasetScores) -> list[str]:
    """Returns the names of the validation videos of which only some frames were scored."""
    wanted = published_videos()
    return [video.name for key, video in found.videos.items() if key in wanted and not video.is_whole]


def against_published(found: DatasetScores) -> dict[str, Agreement]:
    """Compares with the published scores of SalEMA30, metric by metric; those that no video has are left out."""
    rows, wanted = published_differences(found), published_videos()
    keys, differences = list(rows), np.array(list(rows.values())).reshape(-1, len(FIVE))
    agreements = {}
    for column, name in enumerate(FIVE):
        known = ~np.isnan(differences[:, column])
        if not known.any():
            continue
        theirs = np.array([wanted[key][column] for key in keys])[known]
        ours = theirs + differences[known, column]
        varies = known.sum() > 1 and np.ptp(ours) > 0 and np.ptp(theirs) > 0
        agreements[name] = Agreement(
            mean_difference=float(differences[known, column].mean()),
            largest_difference=float(np.abs(differences[known, column]).max()),
            correlation=float(np.corrcoef(ours, theirs)[0, 1]) if varies else None,
            videos=int(known.sum()),
        )
    return agreements
