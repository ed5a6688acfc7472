"""How fast the metrics are against the textbook's loops: `python -m salema.benchmarks.metric_speed FILE.json`.

One frame's five metrics of the published table, in turns, on one core and in the process's own time: at 640x360 as
DHF1K's maps are, and at half of that as the protocol `salema` has it; 80 fixations, and those of 40 other frames for
shuffled AUC. Both sides take the same uint8 maps, already read and of one size; only ours breaks ties.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from salema.benchmarks import slow_metrics as slow
from salema.benchmarks.auc import auc_judd, shuffled_auc
from salema.benchmarks.environment import describe_environment
from salema.benchmarks.harness import compare
from salema.runtime.metrics import cc, nss, sim

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ROUNDS = 25
SIZES = {"640x360": (360, 640), "320x180": (180, 320)}
FIXATIONS, OTHER_FRAMES = 80, 40
_RNG = np.random.default_rng(0)

Frame = dict[str, "NDArray[Any]"]


def make_frame(size_hw: tuple[int, int]) -> Frame:
    """Returns a frame: `saliency` and `density` uint8, `fixated` and `others` bool, all `(H, W)`."""
    draw = np.random.default_rng(0)
    fixated, others = (
        draw.random(size_hw) < count / np.prod(size_hw) for count in (FIXATIONS, FIXATIONS * OTHER_FRAMES)
    )
    density, saliency = (
        cv2.GaussianBlur(places.astype(np.float64), (0, 0), size_hw[0] / 20) for places in (fixated, others)
    )
    maps = {name: values / values.max() * 255 for name, values in (("density", density), ("saliency", saliency))}
    return {"fixated": fixated, "others": others, **{name: np.rint(x).astype(np.uint8) for name, x in maps.items()}}


def fast(frame: Frame, metric: str) -> float:
    """Scores a frame by one metric as `salema-eval` does, or by all five."""
    saliency, density, fixated = frame["saliency"], frame["density"], frame["fixated"]
    calls: dict[str, Callable[[], float]] = {
        "auc_judd": lambda: auc_judd(saliency, fixated, _RNG, black_only=True),
        "s_auc": lambda: shuffled_auc(saliency, fixated, np.flatnonzero(frame["others"]), _RNG, at_top=False),
        "nss": lambda: nss(saliency, fixated),
        "cc": lambda: cc(saliency, density),
        "sim": lambda: sim(saliency, density),
    }
    return sum(call() for name, call in calls.items() if metric in {name, "all five"})


def loops(frame: Frame, metric: str) -> float:
    """Scores a frame as the textbook does."""
    saliency, density, fixated = frame["saliency"], frame["density"], frame["fixated"]
    calls: dict[str, Callable[[], float]] = {
        "auc_judd": lambda: slow.auc_judd(saliency, fixated),
        "s_auc": lambda: slow.shuffled_auc(saliency, fixated, frame["others"], _RNG),
        "nss": lambda: slow.nss(saliency, fixated),
        "cc": lambda: slow.cc(saliency, density),
        "sim": lambda: slow.sim(saliency, density),
    }
    return sum(call() for name, call in calls.items() if metric in {name, "all five"})


def main() -> None:
    """Measures, prints and writes JSON."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    timings: dict[str, dict[str, Any]] = {}
    for size, size_hw in SIZES.items():
        frame = make_frame(size_hw)
        for metric in ("auc_judd", "s_auc", "nss", "cc", "sim", "all five"):
            cases = {"loops": partial(loops, frame, metric), "salema": partial(fast, frame, metric)}
            found = compare(cases, "loops", ROUNDS, inner=3, clock=time.process_time)
            timings[f"{metric}, {size}"] = {name: asdict(timing) for name, timing in found.items()}
            ours = found["salema"]
            print(
                f"{metric:9s} {size}: loops {found['loops'].median_ms:7.2f} ms, salema {ours.median_ms:6.2f} ms,"
                f" {ours.ratio:6.1f} x ({ours.ratio_low:.1f} to {ours.ratio_high:.1f})"
            )
    record = {"environment": describe_environment(), "fixations": FIXATIONS, "rounds": ROUNDS, "timings": timings}
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
