"""How much DHF1K's scores depend on the size of the maps: the network's, or the source's.

Synthetic frames of 640x360 have a density of a few blobs, fixations drawn from it, and a map at 256x192: the density,
smoothed and with noise added. All variants of a map are scored with the protocol `dhf1k` and the same draws.
Usage: python -m salema.benchmarks.studies.map_size_scores FILE.json
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.maps.fixations import seeded
from salema.benchmarks.metrics.protocols import METRICS, PROTOCOLS, score_frame
from salema.benchmarks.studies.common import write_study
from salema.runtime.output.bicubic import matlab_bicubic
from salema.runtime.output.map_size import levels_at
from salema.runtime.postprocess import to_grey

FRAMES, TRUTH_HW, MAP_HW = 200, (360, 640), (192, 256)


def _at_source(raw: NDArray[np.float32]) -> NDArray[Any]:
    return levels_at(raw, (raw.min(), raw.max()), TRUTH_HW)


def _by_bilinear(raw: NDArray[np.float32]) -> NDArray[Any]:
    return cv2.resize(to_grey(raw), TRUTH_HW[::-1], interpolation=cv2.INTER_LINEAR)


def _by_bicubic_not_rounded(raw: NDArray[np.float32]) -> NDArray[Any]:
    return matlab_bicubic(raw.astype(np.float64), TRUTH_HW)


def _nothing_below_0(raw: NDArray[np.float32]) -> NDArray[Any]:
    return matlab_bicubic(to_grey(raw), TRUTH_HW).clip(0)


_OTHER_DRAWS = "network, other draws"
VARIANTS: dict[str, Callable[[NDArray[np.float32]], NDArray[Any]]] = {
    "network": to_grey,
    "source": _at_source,
    "source, 8-bit levels resized bilinearly": _by_bilinear,
    "source, in double": _by_bicubic_not_rounded,
    "network, nothing below 0 after the benchmark's resize": _nothing_below_0,
    _OTHER_DRAWS: to_grey,
}


def make_frame(number: int) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.bool_]]:
    """Returns a raw map `(192, 256)` with its density and its fixations, both `(360, 640)`."""
    rng = seeded(0, "map size", number)
    rows, columns = np.mgrid[: TRUTH_HW[0], : TRUTH_HW[1]]
    density = np.zeros(TRUTH_HW)
    for _ in range(rng.integers(1, 5)):
        row, column, width = rng.uniform(40, 320), rng.uniform(60, 580), rng.uniform(12, 40)
        density += rng.uniform(0.3, 1) * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))
    places = rng.choice(density.size, rng.integers(10, 60), p=(density / density.sum()).ravel())
    fixated = np.zeros(TRUTH_HW, bool)
    fixated.ravel()[places] = True
    noise = cv2.GaussianBlur(rng.random(MAP_HW), (0, 0), 12)
    seen = cv2.GaussianBlur(cv2.resize(density, MAP_HW[::-1], interpolation=cv2.INTER_AREA), (0, 0), 6)
    raw = 0.7 * seen / seen.max() + 2 * (noise - noise.min()) * rng.uniform(0.2, 1)
    return (raw / max(raw.max(), 1)).astype(np.float32), (density / density.max() * 255).astype(np.uint8), fixated


def measure() -> dict[str, Any]:
    """Scores all variants of each frame; returns their means, and their differences from maps at network size."""
    frames = [make_frame(number) for number in range(FRAMES)]
    scores: dict[str, list[NDArray[np.float64]]] = {name: [] for name in VARIANTS}
    for number, (raw, density, fixated) in enumerate(frames):
        drawn = seeded(0, "others", number).choice(np.delete(np.arange(FRAMES), number), 10, replace=False)
        others = sum((frames[other][2] for other in drawn), np.zeros(TRUTH_HW, np.int32)).clip(0, 1)
        for name, variant in VARIANTS.items():
            rng = seeded(int(name == _OTHER_DRAWS), "scores", number)
            scores[name].append(score_frame(variant(raw), density, fixated, others, PROTOCOLS["dhf1k"], rng))
    tables = {name: np.array(rows) for name, rows in scores.items()}
    return {
        name: {
            "mean": dict(zip(METRICS, table.mean(axis=0).tolist(), strict=True)),
            "mean_difference": dict(zip(METRICS, (table - tables["network"]).mean(axis=0).tolist(), strict=True)),
            "largest_difference": dict(zip(METRICS, abs(table - tables["network"]).max(axis=0).tolist(), strict=True)),
        }
        for name, table in tables.items()
    }


def main() -> None:
    """Measures and writes JSON."""
    record = {"frames": FRAMES, "truth_hw": TRUTH_HW, "map_hw": MAP_HW, "protocol": "dhf1k", "variants": measure()}
    write_study(record, timed=False)


if __name__ == "__main__":
    main()
