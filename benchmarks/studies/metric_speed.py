"""How fast the metrics are against the textbook's loops: `python -m salema.benchmarks.studies.metric_speed FILE.json`.

It times the five metrics of the published table on one frame, in turns, on one core, in CPU time: at 640x360, the size
of DHF1K's maps, under each protocol, and at half of that, as the protocol `salema` does it. The frame has 80 fixations,
and those of as many other frames as the protocol takes (of 6000 where it takes all). Both sides get the same maps,
already read and of one size: uint8, or float32 where the protocol needs it. Only ours breaks ties. The loops are the
published ones under every protocol, as nobody would compare every pixel with every other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.metrics.protocols import PROTOCOLS, Protocol, defined_metrics, to_size
from salema.benchmarks.speed.harness import compare
from salema.benchmarks.studies import slow_metrics as slow
from salema.benchmarks.studies.common import take_one_core, write_by_cpu

ROUNDS = 25
SETTINGS = {
    "salema, 320x180": ("salema", (180, 320)),
    "salema, 640x360": ("salema", (360, 640)),
    "dhf1k, 640x360": ("dhf1k", (360, 640)),
    "exact, 640x360": ("exact", (360, 640)),
}
FIVE = ("auc_judd", "s_auc", "nss", "cc", "sim")
FIXATIONS, ALL_FRAMES = 80, 6000
_NETWORK_HW = (192, 256)
_RNG = np.random.default_rng(0)

Frame = dict[str, NDArray[Any]]


def make_frame(size_hw: tuple[int, int], protocol: Protocol) -> Frame:
    """Returns a frame: `saliency`, `density` uint8, `fixated` bool, `others` int32 counts, all `(H, W)`.

    `saliency` is resized from the network's size as the protocol does it, and so may be float32.
    """
    draw = np.random.default_rng(0)
    fixated, looked = (_drawn(draw, size, FIXATIONS) > 0 for size in (size_hw, _NETWORK_HW))
    others = _drawn(draw, size_hw, FIXATIONS * (protocol.other_frames or ALL_FRAMES))
    if protocol.other_frames:
        others = np.minimum(others, 1)
    saliency, density = _blurred(looked), _blurred(fixated)
    return {
        "fixated": fixated,
        "others": others,
        "density": density,
        "saliency": to_size(saliency, size_hw, protocol),
    }


def _drawn(draw: np.random.Generator, size_hw: tuple[int, int], count: int) -> NDArray[np.int32]:
    """Returns how often each pixel was drawn, `(H, W)`."""
    pixels = size_hw[0] * size_hw[1]
    return np.bincount(draw.integers(0, pixels, count), minlength=pixels).reshape(size_hw).astype(np.int32)


def _blurred(places: NDArray[np.bool_]) -> NDArray[np.uint8]:
    blurred = np.asarray(cv2.GaussianBlur(places.astype(np.float64), (0, 0), places.shape[0] / 20))
    grey: NDArray[np.uint8] = np.rint(blurred / blurred.max() * 255).astype(np.uint8)
    return grey


def fast(frame: Frame, protocol: Protocol, metric: str) -> float:
    """Scores a frame by one metric as `salema-eval` does, or by all five."""
    maps = (frame["saliency"], frame["density"], frame["fixated"], frame["others"])
    metrics = defined_metrics(*maps, protocol, _RNG)
    return sum(metrics[name]() for name in FIVE if metric in {name, "all five"})


def loops(frame: Frame, protocol: Protocol, metric: str) -> float:
    """Scores a frame by one metric as the textbook does, or by all five."""
    saliency, density, fixated = frame["saliency"], frame["density"], frame["fixated"]
    others, top = frame["others"] > 0, protocol.at_top
    calls: dict[str, Callable[[], float]] = {
        "auc_judd": lambda: slow.auc_judd(saliency, fixated),
        "s_auc": lambda: slow.shuffled_auc(saliency, fixated, others, _RNG, at_top=top),
        "nss": lambda: slow.nss(saliency, fixated, protocol.ddof),
        "cc": lambda: slow.cc(saliency, density),
        "sim": lambda: slow.sim(saliency, density),
    }
    return sum(call() for name, call in calls.items() if metric in {name, "all five"})


def main() -> None:
    """Measures, prints and writes JSON."""
    take_one_core()
    cv2.setNumThreads(1)
    timings: dict[str, dict[str, Any]] = {}
    for setting, (name, size_hw) in SETTINGS.items():
        protocol = PROTOCOLS[name]
        frame = make_frame(size_hw, protocol)
        for metric in (*FIVE, "all five"):
            sides = {"loops": loops, "salema": fast}
            cases = {side: partial(score, frame, protocol, metric) for side, score in sides.items()}
            both = compare(cases, "loops", ROUNDS, inner=3, clock=time.process_time)
            timings[f"{metric}, {setting}"] = {side: asdict(timing) for side, timing in both.items()}
            ours = both["salema"]
            print(
                f"{metric:9s} {setting}: loops {both['loops'].median_ms:7.2f} ms, salema {ours.median_ms:6.2f} ms,"
                f" {ours.ratio:6.1f} x ({ours.ratio_low:.1f} to {ours.ratio_high:.1f})"
            )
    write_by_cpu({"fixations": FIXATIONS, "rounds": ROUNDS, "timings": timings})


if __name__ == "__main__":
    main()
