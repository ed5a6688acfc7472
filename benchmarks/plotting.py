"""Figures with Matplotlib, which is in the extra `plot`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from salema.runtime.errors import MissingDependencyError, UsageError, reason
from salema.runtime.files.whole_files import check_writable, written_aside


def check_plot(path: Path) -> None:
    """Refuses, before long work, a plot that could not be drawn at its end.

    Raises:
        UsageError: its name does not end in .png.
        MissingDependencyError: Matplotlib is not installed.
        OutputError: its folder can't be written.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"--plot {path}: plots are written as .png")
    try:
        import matplotlib.figure  # noqa: F401, PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            f"--plot needs Matplotlib ({reason(error)}); install it with: pip install 'salema[plot]'"
        ) from error
    check_writable(path)


def new_figure(width: float, height: float) -> Any:
    """Returns an empty figure, its size in inches; it opens no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure as PNG.

    Raises:
        OutputError: the file can't be written.
    """
    with written_aside(path) as aside, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box is drawn in its place
        figure.savefig(aside, dpi=110)
