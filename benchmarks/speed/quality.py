"""How far a case's maps are from float32: what a speed is worth nothing without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from salema.runtime.metrics import cc, sim

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salema.benchmarks.peers.peers import Runner


@dataclass(frozen=True)
class Quality:
    """Against the reference over consecutive frames with the state running; the least CC and SIM of a frame.

    `map_max` is the greatest difference of a raw map's value.
    """

    reference: str
    frames: int
    cc: float
    sim: float
    map_max: float


def run_maps(runner: Runner, frames: NDArray[np.uint8], batch: int) -> NDArray[np.float32]:
    """Returns the maps `[T, H, W]` of the first of so many streams that all see the same frames `[T, H, W, 3]`."""
    runner.reset()
    return np.stack([runner.infer(np.repeat(frame[np.newaxis], batch, 0))[0] for frame in frames])


def compare_maps(found: NDArray[np.float32], expected: NDArray[np.float32], reference: str) -> Quality:
    """Compares maps `[T, H, W]`."""
    pairs = list(zip(found, expected, strict=True))
    return Quality(
        reference,
        len(pairs),
        min(cc(a, b) for a, b in pairs),
        min(sim(a, b) for a, b in pairs),
        float(np.abs(found - expected).max()),
    )
