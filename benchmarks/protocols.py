"""The three ways in which the metrics are taken, and one frame's scores under them.

`salema` is the published table's, `dhf1k` that of the benchmark's MATLAB code, `exact` samples nothing. Scores of
different protocols can't be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from salema.benchmarks.auc import auc_borji, auc_judd, exact_auc, shuffled_auc
from salema.runtime.errors import MissingDependencyError, UsageError, reason
from salema.runtime.metrics import cc, kl_divergence, nss, sim

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Map = NDArray[Any]

METRICS = {
    "auc_judd": "AUC-J",
    "s_auc": "s-AUC",
    "nss": "NSS",
    "cc": "CC",
    "sim": "SIM",
    "kl": "KL",
    "auc_borji": "AUC-B",
}
Mean = Literal["videos", "frames"]


@dataclass(frozen=True)
class Protocol:
    """How frames are scored and averaged.

    Attributes:
        name: what it is called.
        means: over the videos' means and over all frames, the protocol's own first.
        resize: how a prediction gets the ground truth's size.
        halved: whether all is then scored at half that size.
        sampled: whether AUCs are jittered and drawn; if not, every threshold and every place counts.
        at_top: whether the greatest value is a threshold of the sampled AUCs.
        black_only: whether AUC-Judd's jitter breaks ties of black pixels only.
        ddof: 0 divides NSS's deviation by N, 1 by N - 1.
        other_frames: of how many other frames the fixations are the negatives of s-AUC; None for all.
        per_video: whether these are drawn once for a video, from other videos, or for each frame from all.
    """

    name: str
    means: tuple[Mean, ...]
    resize: Literal["bilinear", "bicubic"]
    halved: bool
    sampled: bool
    at_top: bool
    black_only: bool
    ddof: int
    other_frames: int | None
    per_video: bool


PROTOCOLS = {
    "salema": Protocol(
        name="salema",
        means=("videos", "frames"),
        resize="bilinear",
        halved=True,
        sampled=True,
        at_top=False,
        black_only=True,
        ddof=0,
        other_frames=40,
        per_video=True,
    ),
    "dhf1k": Protocol(
        name="dhf1k",
        means=("frames", "videos"),
        resize="bicubic",
        halved=False,
        sampled=True,
        at_top=True,
        black_only=False,
        ddof=1,
        other_frames=10,
        per_video=False,
    ),
    "exact": Protocol(
        name="exact",
        means=("videos", "frames"),
        resize="bilinear",
        halved=False,
        sampled=False,
        at_top=False,
        black_only=False,
        ddof=0,
        other_frames=None,
        per_video=True,
    ),
}


def find_protocol(name: str) -> Protocol:
    """Looks up a protocol.

    Raises:
        UsageError: there is none of that name.
        MissingDependencyError: it needs a library that is not installed.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"--protocol {name}: not one of {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[name]
    if protocol.resize == "bicubic":
        try:
            import PIL.Image  # noqa: F401, PLC0415 - in the extra `eval`
        except ImportError as error:
            raise MissingDependencyError(
                f"--protocol {name} resizes with Pillow ({reason(error)}); install it with: pip install 'salema[eval]'"
            ) from error
    return protocol


def to_size(saliency: Map, size_hw: tuple[int, int], protocol: Protocol) -> Map:
    """Resizes a prediction `(h, w)` to the ground truth's size `(H, W)` as the protocol does.

    `bicubic` is Keys' with a = -0.5 and antialiasing, as MATLAB's `imresize` has it, and OpenCV not. Where something
    is sampled, values keep their type and are rounded, as in the published code; `exact` goes on in float32.
    """
    if saliency.shape == size_hw:
        return saliency
    if protocol.resize == "bicubic":
        return _bicubic(saliency, size_hw)
    values = saliency if protocol.sampled else saliency.astype(np.float32)
    resized: Map = cv2.resize(values, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return resized


def _bicubic(saliency: Map, size_hw: tuple[int, int]) -> Map:
    from PIL import Image  # noqa: PLC0415 - in the extra `eval`

    is_8_bit = saliency.dtype == np.uint8
    image = Image.fromarray(saliency if is_8_bit else saliency.astype(np.float32))
    resized: Map = np.asarray(image.resize(size_hw[::-1], Image.Resampling.BICUBIC)).clip(0)  # it overshoots
    if saliency.dtype == np.uint16:
        resized = np.rint(resized).clip(0, 65535).astype(np.uint16)
    return resized


def halve(values: Map) -> Map:
    """Halves a map's height and width, each value of the result the mean of about four."""
    if min(values.shape) == 1:  # a line has no half
        return values
    halved: Map = cv2.resize(values, (0, 0), fx=0.5, fy=0.5, interpolation=cv2.INTER_LINEAR)
    return halved


def halve_places(places: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Halves a binary map: set where any of the pixels that are averaged is."""
    any_set: NDArray[np.bool_] = (halve(places.astype(np.uint8) * np.uint8(255)) > 0).astype(bool)
    return any_set


def score_frame(
    saliency: Map,
    density: Map | None,
    fixated: NDArray[np.bool_] | None,
    others: Map | None,
    protocol: Protocol,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Scores one frame.

    Args:
        saliency: the prediction `(h, w)`, any size.
        density: what people looked at as a density `(H, W)`; None if that is not known.
        fixated: the places as bool `(H, W)`; None if they are not known.
        others: how often each place was fixated in other frames `(H, W)`; None if nothing is known of that.
        protocol: how.
        rng: draws what is sampled.

    Returns:
        float64 in the order of `METRICS`; NaN where a score is not defined: CC, SIM and KL without a density, or where
        it is flat; NSS without fixations; the AUCs also where all places are fixated, s-AUC where nothing else is.
    """
    scores = dict.fromkeys(METRICS, np.nan)
    known = next((truth for truth in (density, fixated) if truth is not None), None)
    if known is None:
        return np.array(list(scores.values()))
    saliency = to_size(saliency, (known.shape[0], known.shape[1]), protocol)
    if protocol.halved:
        saliency = halve(saliency)
        density = None if density is None else halve(density)
        fixated = None if fixated is None else halve_places(fixated)
        others = None if others is None else halve_places(others > 0)
    metrics = defined_metrics(saliency, density, fixated, others, protocol, rng)
    scores |= {name: metric() for name, metric in metrics.items()}
    return np.array(list(scores.values()))


def defined_metrics(
    saliency: Map,
    density: Map | None,
    fixated: NDArray[np.bool_] | None,
    others: Map | None,
    protocol: Protocol,
    rng: np.random.Generator,
) -> dict[str, Callable[[], float]]:
    """Returns how to take each metric that is defined, by its name; maps are of one size, the scored one."""
    metrics: dict[str, Callable[[], float]] = {}
    if density is not None and np.ptp(density) > 0:
        similarities = {"cc": cc, "sim": sim, "kl": kl_divergence}
        metrics |= {name: partial(metric, saliency, density) for name, metric in similarities.items()}
    if fixated is not None and fixated.any():
        metrics["nss"] = partial(nss, saliency, fixated, protocol.ddof)
        if not fixated.all():
            aucs = _sampled_aucs if protocol.sampled else _exact_aucs
            metrics |= aucs(saliency, fixated, others, protocol, rng)
    return metrics


def _sampled_aucs(
    saliency: Map, fixated: NDArray[np.bool_], others: Map | None, protocol: Protocol, rng: np.random.Generator
) -> dict[str, Callable[[], float]]:
    # Each has draws of its own: how many AUC-Judd takes depends on the map, and the others' are to be the same for all.
    judd, borji, shuffled = (np.random.default_rng(seed) for seed in rng.integers(2**63, size=3))
    aucs: dict[str, Callable[[], float]] = {
        "auc_judd": partial(auc_judd, saliency, fixated, judd, black_only=protocol.black_only),
        "auc_borji": partial(auc_borji, saliency, fixated, borji, at_top=protocol.at_top),
    }
    if others is not None and others.any():
        aucs["s_auc"] = lambda: shuffled_auc(
            saliency, fixated, np.flatnonzero(others), shuffled, at_top=protocol.at_top
        )
    return aucs


def _exact_aucs(
    saliency: Map, fixated: NDArray[np.bool_], others: Map | None, _: Protocol, __: np.random.Generator
) -> dict[str, Callable[[], float]]:
    positives = saliency[fixated]
    aucs: dict[str, Callable[[], float]] = {
        "auc_judd": lambda: exact_auc(positives, saliency[~fixated]),
        "auc_borji": lambda: exact_auc(positives, saliency.ravel()),
    }
    if others is not None and others.any():
        aucs["s_auc"] = lambda: exact_auc(positives, saliency[others > 0], others[others > 0])
    return aucs
