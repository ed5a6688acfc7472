"""Compares an exported file with PyTorch, frame by frame, before it gets its name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from salema.export.graph.models import SaliencyStep
from salema.export.weights.seeded import moving_disc
from salema.runtime.errors import VerificationError
from salema.runtime.metrics import cc
from salema.runtime.session import Session

FRAMES = 6
RESET_AT = 3
TOLERANCE = {"fp32": 1e-4, "fp16": 3e-3}
LEAST_CC = 0.9999
_CONTROL_RATIO = 10
_TINY = 1e-12
_FLAT = 1e-6

Step = tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]
"""Maps `[N, H, W]` and states `{name: [N, C, h, w]}` after one frame."""


@dataclass(frozen=True)
class Report:
    """How far the exported model is from PyTorch in float32.

    Attributes:
        frames: frames compared, with a reset in the middle.
        map_max: greatest difference of a map's value.
        map_mean: mean difference of a map's values.
        state_error: greatest relative error of a state: the root mean square of its difference over that of its values.
            Activations have no fixed scale, and single values of an LSTM have the rounding errors of whole gates.
        cc: least correlation between two maps of a frame.
        control_max: greatest difference of a map, or error of a state, for frames of noise: proof that the check can
            fail.
        tolerance: the most that `map_max` and `state_error` may be.
    """

    frames: int
    map_max: float
    map_mean: float
    state_error: float
    cc: float
    control_max: float
    tolerance: float


def verify(model: SaliencyStep, session: Session) -> Report:
    """Compares an exported model's maps and states with PyTorch's, on a moving sequence with a reset in it.

    `model` is the float32 network, `session` the exported file, loaded again from disk.

    Raises:
        VerificationError: they differ by more than the precision's tolerance, or noise makes no difference.
    """
    spec = session.spec
    batch = spec.batch or 2
    frames = _sequence(batch, spec.height, spec.width)
    expected = _run_torch(model, session, frames)
    actual = _run_session(session, frames)
    noise = np.random.default_rng(0).integers(0, 256, frames[:RESET_AT].shape, dtype=np.uint8)
    control = _run_session(session, noise)
    map_max, state_error = _differences(expected, actual)
    report = Report(
        frames=FRAMES,
        map_max=map_max,
        map_mean=float(np.mean([np.abs(a - b).mean() for (a, _), (b, _) in zip(expected, actual, strict=True)])),
        state_error=state_error,
        cc=_least_cc(expected, actual),
        control_max=max(_differences(expected[:RESET_AT], control)),
        tolerance=TOLERANCE[spec.precision],
    )
    _check(report, spec.precision)
    return report


def _check(report: Report, precision: str) -> None:
    worst = float(np.maximum(report.map_max, report.state_error))
    # Written so that a NaN fails.
    if not (worst <= report.tolerance and report.cc >= LEAST_CC):
        advice = "; these weights may be out of FP16's range, so export with --fp32" if precision == "fp16" else ""
        raise VerificationError(
            f"the exported model is not the PyTorch model: maps differ by {report.map_max:.2g}, states by"
            f" {report.state_error:.2g} (at most {report.tolerance:g} allowed), CC {report.cc:.6f} (at least"
            f" {LEAST_CC}); nothing was written{advice}"
        )
    if not report.control_max > _CONTROL_RATIO * worst:
        raise VerificationError(
            f"the check can't tell: noise instead of the frames changes maps and states by {report.control_max:.2g}"
            f" only, PyTorch and the file differ by {worst:.2g}; with these weights the network ignores its frames, so"
            " nothing was written"
        )


def _sequence(batch: int, height: int, width: int) -> NDArray[np.uint8]:
    """Returns frames `[T, N, H, W, 3]`; each stream sees the disc at another time."""
    frames = moving_disc(FRAMES + 2 * batch, height, width)
    return np.stack([frames[2 * stream : 2 * stream + FRAMES] for stream in range(batch)], 1)


def _mix(session: Session, t: int, batch: int) -> NDArray[np.float32]:
    """Returns the weights of the new frame: all streams start together, and every second one again in the middle."""
    mix = np.full(batch, session.spec.coefficient or 0, np.float32)
    if t == 0:
        mix[:] = 1
    elif t == RESET_AT:
        mix[::2] = 1
    return mix


def _zeros(session: Session, batch: int) -> dict[str, NDArray[np.float32]]:
    return {state.name: np.zeros((batch, *state.shape_chw), np.float32) for state in session.spec.states}


def _run_session(session: Session, frames: NDArray[np.uint8]) -> list[Step]:
    batch = frames.shape[1]
    zeros = _zeros(session, batch)
    states, steps = session.from_host(zeros), []
    for t, frame in enumerate(frames):
        if t == RESET_AT and session.spec.coefficient is None:
            states = session.from_host(zeros)
        maps, states = session.step(np.ascontiguousarray(frame), states, _mix(session, t, batch))
        steps.append((maps, session.to_host(states)))
    return steps


def _run_torch(model: SaliencyStep, session: Session, frames: NDArray[np.uint8]) -> list[Step]:
    batch = frames.shape[1]
    names = [state.name for state in session.spec.states]
    zeros = [torch.from_numpy(array) for array in _zeros(session, batch).values()]
    states, steps = zeros, []
    for t, frame in enumerate(frames):
        if t == RESET_AT and session.spec.coefficient is None:
            states = zeros
        mix = [] if session.spec.coefficient is None else [torch.from_numpy(_mix(session, t, batch))]
        with torch.inference_mode():
            saliency, *states = model(torch.from_numpy(np.ascontiguousarray(frame)), *states, *mix)
        steps.append((saliency[:, 0].numpy(), {name: s.numpy() for name, s in zip(names, states, strict=True)}))
    return steps


def _differences(expected: list[Step], actual: list[Step]) -> tuple[float, float]:
    """Returns the greatest difference of the maps, and the greatest relative error of the states."""
    maps, states = 0.0, 0.0
    for (map_a, states_a), (map_b, states_b) in zip(expected, actual, strict=True):
        maps = np.maximum(maps, np.abs(map_a - map_b).max())  # np.maximum keeps a NaN, max() may drop it
        for name, state in states_a.items():
            states = np.maximum(states, _norm(state - states_b[name]) / max(_norm(state), _TINY))
    return float(maps), float(states)


def _norm(array: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(array))


def _least_cc(expected: list[Step], actual: list[Step]) -> float:
    """Returns the least correlation between two maps, leaving out flat ones, which have none."""
    steps = zip(expected, actual, strict=True)
    pairs = (pair for (maps_a, _), (maps_b, _) in steps for pair in zip(maps_a, maps_b, strict=True))
    return min((cc(a, b) for a, b in pairs if min(a.std(), b.std()) > _FLAT), default=1.0)
