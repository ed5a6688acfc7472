"""The three protocols of the metrics, and the scores of one frame by each.

`salema` is the published table's, `dhf1k` is the benchmark's MATLAB code, `exact` samples nothing. Scores of different
protocols can't be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from salema.benchmarks.metrics.auc import auc_borji, auc_judd, exact_auc, shuffled_auc, step_values, without_positives
from salema.benchmarks.metrics.counting import Counting
from salema.benchmarks.metrics.resizing import Resize, halve, halve_places, resize
from salema.runtime.errors import UsageError
from salema.runtime.metrics import Measured, cc, kl_divergence, measured, nss, places_of, sim
from salema.runtime.run.dataset_layouts import IN_IMAGES

if TYPE_CHECKING:
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
_DENSE = 16  # with more positives than one in 16 pixels, counting all is faster than sorting some


@dataclass(frozen=True)
class Protocol:
    """How frames are scored and averaged.

    Attributes:
        name: what it is called.
        means: `videos` (of the videos' means) and `frames` (of all frames); the protocol's own comes first.
        resize: how a prediction gets the ground truth's size, and under `area` other frames' fixations the video's.
        halved: whether maps are then scored at half that size.
        sampled: whether AUCs are jittered and drawn; if not, every threshold and every place counts.
        at_top: whether the greatest value is a threshold of the sampled AUCs.
        in_float32: whether AUC-Judd's jitter is added in float32, where it is lost on levels of 2 and above.
        ddof: 0 divides NSS's deviation by N, 1 by N - 1.
        other_frames: of how many other frames the fixations are the negatives of s-AUC; None for all.
        per_video: whether these are drawn once for a video, from others, and averaged, or for each frame from all.
    """

    name: str
    means: tuple[Mean, ...]
    resize: Resize
    halved: bool
    sampled: bool
    at_top: bool
    in_float32: bool
    ddof: int
    other_frames: int | None
    per_video: bool


_EXACT = Protocol(
    name="exact",
    means=("videos", "frames"),
    resize="bilinear",
    halved=False,
    sampled=False,
    at_top=False,
    in_float32=False,
    ddof=0,
    other_frames=None,
    per_video=True,
)
PROTOCOLS = {
    "salema": replace(_EXACT, name="salema", halved=True, sampled=True, in_float32=True, other_frames=40),
    "dhf1k": replace(
        _EXACT,
        name="dhf1k",
        means=("frames", "videos"),
        resize="bicubic",
        sampled=True,
        at_top=True,
        ddof=1,
        other_frames=10,
        per_video=False,
    ),
    "exact": _EXACT,
}


def find_protocol(name: str, dataset: str = "") -> Protocol:
    """Looks up a protocol; the published code scores Hollywood-2 and UCF-sports in its own way.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"--protocol {name}: not one of {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[name]
    if name == "salema" and dataset in IN_IMAGES:
        return replace(protocol, resize="area", other_frames=10)
    return protocol


def to_size(saliency: Map, size_hw: tuple[int, int], protocol: Protocol) -> Map:
    """Resizes a prediction `(h, w)` to the ground truth's size `(H, W)` as the protocol does.

    The published code keeps the type of what it reads, and so rounds; MATLAB's goes on in float64, `exact` in float32.
    """
    if saliency.shape == size_hw:
        return saliency
    values = saliency if protocol.sampled else saliency.astype(np.float32)
    return resize(values, size_hw, protocol.resize)


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
        others: how often each place was fixated in other frames `(H, W)`, or, as bool, whether it was, or, as uint8,
            the average of their maps of 0 and 255; None if nothing is known of that.
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
        others = None if others is None else halve_places(others if others.dtype == np.uint8 else others > 0)
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
    """Returns a function for each metric that is defined, by its name; all maps have the scored size."""
    metrics: dict[str, Callable[[], float]] = {}
    known = measured(saliency)
    wanted = None if density is None else measured(density)
    if wanted is not None and not wanted.is_flat:
        metrics |= {
            name: partial(metric, known, wanted) for name, metric in {"cc": cc, "sim": sim, "kl": kl_divergence}.items()
        }
    fixations = np.empty(0, np.intp) if fixated is None else places_of(fixated)
    if fixations.size:
        metrics["nss"] = partial(nss, known, fixations, protocol.ddof)
        if fixations.size < saliency.size:
            aucs = _sampled_aucs if protocol.sampled else _exact_aucs
            metrics |= aucs(known, fixations, others, protocol, rng)
    return metrics


def _sampled_aucs(
    known: Measured, fixations: NDArray[np.intp], others: Map | None, protocol: Protocol, rng: np.random.Generator
) -> dict[str, Callable[[], float]]:
    # Each has a generator of its own: AUC-Judd's number of draws depends on the map, and the others' must not.
    judd, borji, shuffled = (np.random.default_rng(seed) for seed in rng.integers(2**63, size=3))
    asked = (known.values.ravel()[fixations], step_values(known, at_top=protocol.at_top))
    counted = Counting(known, np.concatenate(asked))
    aucs: dict[str, Callable[[], float]] = {
        "auc_judd": partial(auc_judd, counted, fixations, judd, in_float32=protocol.in_float32),
        "auc_borji": partial(auc_borji, counted, fixations, borji, at_top=protocol.at_top),
    }
    places = _places(others)
    if places.size:
        aucs["s_auc"] = partial(shuffled_auc, counted, fixations, places, shuffled, at_top=protocol.at_top)
    return aucs


def _exact_aucs(
    known: Measured, fixations: NDArray[np.intp], others: Map | None, _: Protocol, __: np.random.Generator
) -> dict[str, Callable[[], float]]:
    counted, pixels = Counting(known), known.values.size
    positives = counted.values[fixations]
    against_all = cache(partial(exact_auc, positives, counted))
    aucs: dict[str, Callable[[], float]] = {
        "auc_judd": lambda: without_positives(against_all(), positives.size, pixels),
        "auc_borji": against_all,
    }
    places = _places(others)
    if others is not None and places.size:
        weights = others.ravel()
        is_dense = places.size > pixels // _DENSE
        aucs["s_auc"] = lambda: (
            exact_auc(positives, counted, weights)
            if is_dense
            else exact_auc(positives, counted.values[places], weights[places])
        )
    return aucs


def _places(others: Map | None) -> NDArray[np.intp]:
    """Returns the indices `(n,)` of the pixels that are not 0, in the flat map; booleans are four times as fast."""
    return np.empty(0, np.intp) if others is None else places_of(others.astype(bool))
