"""How far a session drifts from PyTorch in float32 over a long video, maps and states, with a reset in the middle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.peers.torch_peers import TorchStream
from salema.runtime.session import Session
from salema.runtime.stream import SaliencyStream

MAP_MAX = {"fp32": 1e-4, "fp16": 2e-2}
"""What a map may differ by, in each precision; TF32, which is off, would be beyond that of FP32."""
LEAST_CC = 0.999
_TINY = 1e-12

TrueStep = tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]
"""A map `[H, W]`, and the states after it by name, of PyTorch in float32."""


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

    def beyond(self, precision: str) -> str | None:
        """Returns which bound of a precision, `fp32` or `fp16`, is broken; None if none is."""
        if not all(map(math.isfinite, astuple(self))):
            return "a difference is not finite"
        if self.map_max > MAP_MAX[precision]:
            return f"a map differs by {self.map_max:.2g}, more than {MAP_MAX[precision]:g}"
        return None if self.cc > LEAST_CC else f"two maps correlate by {self.cc:.4f}, {LEAST_CC} or less"


def true_steps(truth: TorchStream, frames: NDArray[np.uint8]) -> list[TrueStep]:
    """Returns what PyTorch gives for frames `[T, H, W, 3]`, with a reset after half of them."""
    steps = []
    for index, frame in enumerate(frames):
        if index in {0, len(frames) // 2}:
            truth.reset()
        steps.append((truth.infer(frame[None])[0], truth.states()))
    return steps


def compare_with_torch(session: Session, expected_steps: Sequence[TrueStep], frames: NDArray[np.uint8]) -> Parity:
    """Runs a session over the frames of `true_steps`, and resets it where that does; leaves it open."""
    stream = SaliencyStream(session)
    map_max, map_sum, worst, last, cc = 0.0, 0.0, 0.0, 0.0, 1.0
    for index, (frame, (expected, true_states)) in enumerate(zip(frames, expected_steps, strict=True)):
        if index == len(frames) // 2:
            stream.reset()
        saliency = stream.infer(frame[None])[0]
        difference = np.abs(saliency - expected)
        map_max = np.maximum(map_max, difference.max())  # np.maximum keeps a NaN
        map_sum += float(difference.mean())
        cc = np.minimum(cc, np.corrcoef(saliency.ravel(), expected.ravel())[0, 1])
        states = stream.snapshot()
        errors = [_relative(states[name], state) for name, state in true_states.items()]
        last = max(errors, default=0.0)
        worst = np.maximum(worst, last)
    return Parity(len(frames), float(map_max), map_sum / len(frames), float(worst), last, float(cc))


def _relative(state: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(state - expected) / max(float(np.linalg.norm(expected)), _TINY))
