"""A plot of per-video scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from salema.benchmarks.metrics.protocols import METRICS
from salema.benchmarks.plotting import new_figure, save_figure
from salema.benchmarks.scores.published import FIVE, published_videos

if TYPE_CHECKING:
    from salema.benchmarks.scores.report import Evaluation

_NAMED = 200  # more names than this don't fit


def write_plot(path: Path, found: Evaluation) -> None:
    """Draws the published table's five metrics, video by video, for each model; the published scores too if wanted.

    Raises:
        OutputError: the file can't be written.
    """
    keys = list(found.models[0].videos)
    names = [_plain(found.models[0].videos[key].name) for key in keys]
    figure = new_figure(min(6 + 0.12 * len(keys), 30), 2 * len(FIVE))
    for row, (name, axes) in enumerate(zip(FIVE, figure.subplots(len(FIVE), 1, sharex=True), strict=True)):
        for model in found.models:
            axes.plot(
                names, [model.videos[key].means[row] for key in keys], ".-", label=_plain(model.label), linewidth=0.8
            )
        if found.with_published:
            known = published_videos()
            theirs = [known[key][row] if key in known else np.nan for key in keys]
            axes.plot(names, theirs, "k.", label="SalEMA30 (published)", markersize=3)
        axes.set_ylabel(METRICS[name])
        axes.grid(visible=True, alpha=0.3)
    axes.set_xticks(range(0, len(names), 1 + len(names) // _NAMED))
    axes.tick_params(axis="x", labelrotation=90, labelsize=6)
    if figure.axes[0].get_legend_handles_labels()[0]:  # Matplotlib shows none that begins with _
        figure.axes[0].legend(fontsize=7)
    figure.axes[0].set_title(
        f"{found.dataset}, protocol {found.protocol.name}, means over each video's frames", fontsize=9
    )
    save_figure(figure, path)


def _plain(name: str) -> str:
    """Returns a name as Matplotlib takes it for text: no formula, and nothing that isn't Unicode."""
    return name.replace("$", r"\$").encode(errors="backslashreplace").decode()
