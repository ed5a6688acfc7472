"""How far a case's maps are from those of float32: no speed means anything without that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.peers.peers import Runner
from salema.runtime.metrics import cc, sim


@dataclass(frozen=True)
class Quality:
    """The least CC and SIM of a frame against the reference, over consecutive frames with their state.

    `map_max` is the greatest difference of a raw map's value.
    """

    reference: str
    frames: int
    cc: float
    sim: float
    map_max: float


def run_maps(runner: Runner, frames: NDArray[np.uint8], batch: int) -> NDArray[np.float32]:
    """Returns the first stream's maps `[T, H, W]`; all `batch` streams see the same frames `[T, H, W, 3]`."""
    runner.reset()
    return np.stack([runner.infer(np.repeat(frame[np.newaxis], batch, 0))[0] for frame in frames])


def compare_maps(maps: NDArray[np.float32], expected: NDArray[np.float32], reference: str) -> Quality:
    """Compares maps `[T, H, W]`."""
    pairs = list(zip(maps, expected, strict=True))
    return Quality(
        reference,
        len(pairs),
        min(cc(a, b) for a, b in pairs),
        min(sim(a, b) for a, b in pairs),
        float(np.abs(maps - expected).max()),
    )
