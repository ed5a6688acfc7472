"""How far a session drifts from PyTorch in float32 over a long video, maps and states, with a reset in the middle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.peers.torch_peers import TorchStream
from salema.runtime.session import Session
from salema.runtime.stream import SaliencyStream

_TINY = 1e-12


@dataclass(frozen=True)
class Parity:
    """Differences over all frames.

    Attributes:
        frames: how many, with a reset after half of them.
        map_max: greatest difference of a map's value.
        map_mean: mean difference of a map's values.
        state_error: greatest relative error of a state.
        state_error_last: the same on the last frame, where errors have added up.
        cc: least correlation between two maps.
    """

    frames: int
    map_max: float
    map_mean: float
    state_error: float
    state_error_last: float
    cc: float


def compare_with_torch(session: Session, truth: TorchStream, frames: NDArray[np.uint8]) -> Parity:
    """Runs both over frames `[T, H, W, 3]`, with a reset after half of them; leaves the session open."""
    stream = SaliencyStream(session)
    truth.reset()
    map_max, map_sum, worst, last, cc = 0.0, 0.0, 0.0, 0.0, 1.0
    for index, frame in enumerate(frames):
        if index == len(frames) // 2:
            stream.reset()
            truth.reset()
        saliency, expected = stream.infer(frame[None])[0], truth.infer(frame[None])[0]
        difference = np.abs(saliency - expected)
        map_max = np.maximum(map_max, difference.max())  # np.maximum keeps a NaN
        map_sum += float(difference.mean())
        cc = np.minimum(cc, np.corrcoef(saliency.ravel(), expected.ravel())[0, 1])
        states = stream.snapshot()
        errors = [_relative(states[name], state) for name, state in truth.states().items()]
        last = max(errors, default=0.0)
        worst = np.maximum(worst, last)
    return Parity(len(frames), float(map_max), map_sum / len(frames), float(worst), last, float(cc))


def _relative(state: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(state - expected) / max(float(np.linalg.norm(expected)), _TINY))
