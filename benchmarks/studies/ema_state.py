"""Why the state stays in float32: `python -m salema.benchmarks.studies.ema_state docs/ema_state.png` draws it.

A state follows a target for 1000 frames at a coefficient of 0.01, in float64, in float32 by `ema_update`'s twin, and
in float16. There a step of less than half a unit in the last place adds nothing, and the state stalls.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salema.kernels.twins.ema import ema_update

FRAMES = 1000
COEFFICIENT = 0.01
TARGET = 1.0


def follow() -> dict[str, NDArray[np.float64]]:
    """Returns the state after each frame, by its dtype."""
    exact, half = 0.0, np.float16(0)
    state, out = np.zeros((1, 1, 1, 1), np.float32), np.zeros((1, 1, 1, 1), np.float32)
    x, mix = np.full((1, 1, 1, 1), TARGET, np.float32), np.full(1, COEFFICIENT, np.float32)
    rows = []
    for _ in range(FRAMES):
        exact += float(mix[0]) * (TARGET - exact)
        ema_update(state, x, mix, out)
        half = np.float16(half + np.float16(COEFFICIENT) * np.float16(np.float16(TARGET) - half))
        rows.append((exact, float(state[0, 0, 0, 0]), float(half)))
    return dict(zip(("float64", "float32", "float16"), np.array(rows).T, strict=True))


def draw(path: Path) -> None:
    """Writes the figure."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 - in the extra `plot`

    figure, (states, errors) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    followed = follow()
    for name, style in (("float64", "k-"), ("float32", "C0--"), ("float16", "C3-")):
        states.plot(followed[name], style, label=name)
    for name, style in (("float32", "C0-"), ("float16", "C3-")):
        errors.semilogy(np.abs(followed[name] / followed["float64"] - 1), style, label=name)
    errors.axhline(1e-5, color="grey", linewidth=0.8, linestyle=":")
    states.set(xlabel="frame", ylabel="state", title=f"following {TARGET:g} at a = {COEFFICIENT}")
    errors.set(xlabel="frame", ylabel="relative error", title="against float64")
    for axes in (states, errors):
        axes.legend()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
