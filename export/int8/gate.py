"""What INT8 costs: compares the maps of the float model and of the quantised one, each with its own state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salema.runtime.errors import VerificationError
from salema.runtime.metrics import cc, nss, sim
from salema.runtime.session import Session
from salema.runtime.stream import SaliencyStream

Maps = NDArray[np.float32]

LEAST_CC = 0.99
STEPS = 300
_ENDS = 30
_FIXATIONS = 20
_CONTROL_FRAMES = 6


@dataclass(frozen=True)
class Accuracy:
    """How far the INT8 model is from the float one, on frames that it was not calibrated on.

    Attributes:
        frames: the number of different frames, and `steps`: of those run without a reset, forwards and backwards.
        cc: least correlation between two maps of a frame, and `cc_mean`: the mean.
        nss_delta: greatest change of NSS, on fixations drawn from the float map as a density.
        sim: least similarity of two maps (1 is equal), and `sim_mean`: the mean.
        map_max: greatest difference of a map's value, and `map_mean`: the mean.
        drift_cc: least correlation in the last 30 steps minus that in the first 30, and `drift_max`: the same of the
            greatest difference: the errors that add up in the state.
        control_cc: least correlation when the INT8 model sees noise: proof that the check can fail.
        least_cc: the least that `cc` may be.
    """

    frames: int
    steps: int
    cc: float
    cc_mean: float
    nss_delta: float
    sim: float
    sim_mean: float
    map_max: float
    map_mean: float
    drift_cc: float
    drift_max: float
    control_cc: float
    least_cc: float = LEAST_CC


def measure(exact: Session, session: Session, held_out: NDArray[np.uint8], steps: int) -> Accuracy:
    """Compares an INT8 model with the float one.

    Args:
        exact: the float model, of one stream.
        session: the INT8 model, of any number of streams; all see the same frames.
        held_out: frames `[T, H, W, 3]`, uint8 BGR, that it was not calibrated on.
        steps: to run; the frames are played forwards and backwards as often as needed.
    """
    frames = there_and_back(held_out, steps)
    expected, actual = run(exact, frames), run(session, frames)
    noise = np.random.default_rng(0).integers(0, 256, frames[:_CONTROL_FRAMES].shape, dtype=np.uint8)
    control = run(session, noise)
    ccs, sims = _each(cc, expected, actual), _each(sim, expected, actual)
    differences = np.array([np.abs(b - a).max() for a, b in zip(expected, actual, strict=True)])
    ends = min(_ENDS, steps)
    return Accuracy(
        frames=len(held_out),
        steps=steps,
        cc=float(ccs.min()),
        cc_mean=float(ccs.mean()),
        nss_delta=_nss_delta(expected, actual),
        sim=float(sims.min()),
        sim_mean=float(sims.mean()),
        map_max=float(differences.max()),
        map_mean=float(np.mean([np.abs(b - a).mean() for a, b in zip(expected, actual, strict=True)])),
        drift_cc=float(ccs[-ends:].min() - ccs[:ends].min()),
        drift_max=float(differences[-ends:].max() - differences[:ends].max()),
        control_cc=float(_each(cc, expected[: len(control)], control).min()),
    )


def check(accuracy: Accuracy, blame: Sequence[tuple[str, float]], instead: str = "--fp16") -> None:
    """Refuses a model that is too far from the float one, or a check that can't fail.

    `blame` lists layers with the least correlation when only they are INT8, worst first; `instead` is the option of
    another precision to advise.

    Raises:
        VerificationError: the least correlation is below `LEAST_CC`, or noise does not change it.
    """
    if not accuracy.cc >= LEAST_CC:  # a NaN fails
        worst = ", ".join(f"{layer} ({value:.5f} alone)" for layer, value in blame[:3])
        keep = " ".join(f"--float-layer {layer}" for layer, _ in blame[:3])
        raise VerificationError(
            f"INT8 is too far from FP32: least CC {accuracy.cc:.5f} over {accuracy.steps} held-out frames (at least"
            f" {LEAST_CC} is asked); nothing was written; the layers to blame: {worst}; leave them in float with"
            f" {keep}, calibrate on more frames, or export with {instead}"
        )
    if not accuracy.control_cc < LEAST_CC:
        raise VerificationError(
            f"the check can't tell: shown noise instead of the frames, the INT8 model still has CC"
            f" {accuracy.control_cc:.5f}; with these weights the network ignores its frames, so nothing was written"
        )


def there_and_back(frames: NDArray[np.uint8], steps: int) -> NDArray[np.uint8]:
    """Returns `steps` frames: the frames `[T, ...]` forwards, backwards, forwards and so on."""
    order = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
    return frames[[order[step % len(order)] for step in range(steps)]]


def run(session: Session, frames: NDArray[np.uint8]) -> Maps:
    """Returns the maps `[T, H, W]` of consecutive frames `[T, H, W, 3]`; of several streams, those of the first."""
    streams = session.spec.batch or 1
    stream = SaliencyStream(session, streams)
    return np.stack([stream.infer(np.repeat(frame[None], streams, 0))[0] for frame in frames])


def _each(metric: Callable[[Any, Any], float], expected: Maps, actual: Maps) -> NDArray[np.float64]:
    return np.array([metric(b, a) if np.isfinite(b).all() else np.nan for a, b in zip(expected, actual, strict=True)])


def _nss_delta(expected: Maps, actual: Maps) -> float:
    """Returns the greatest change of NSS in a frame, with fixations drawn from the float map minus its least value."""
    draw, worst = np.random.default_rng(0), 0.0
    for a, b in zip(expected, actual, strict=True):
        density = (a - a.min()).astype(np.float64).ravel()
        fixations = np.zeros(a.size, np.uint8)
        if density.any():
            fixations[draw.choice(a.size, _FIXATIONS, p=density / density.sum())] = 1
            worst = np.maximum(worst, abs(nss(b, fixations.reshape(a.shape)) - nss(a, fixations.reshape(a.shape))))
    return float(worst)
