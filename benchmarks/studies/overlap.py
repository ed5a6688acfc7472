"""How well a run's stages overlap: wall time over that of its slowest stage alone.

`python -m salema.benchmarks.studies.overlap CLIP FILE.json`. A wait, as long as a GPU would take, stands in for the
network: it leaves the CPU to the other stages, as a GPU does. On the CPU the network takes all cores, and nothing can
overlap. The slowest stage is then the wait, and alone it takes the sum of the waits.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.studies.common import write_study
from salema.runtime.output.outputs import Outputs
from salema.runtime.run.pipeline import process_video
from salema.runtime.session import Session
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import find_sources
from salema.runtime.spec import ModelSpec, StateSpec
from salema.runtime.stream import SaliencyStream

STEPS_MS = (8.0, 12.0, 20.0)
ROUNDS, FRAMES = 3, 1500
_HW = (192, 256)


class WaitingSession(Session):
    """A session whose step is a wait: a GPU's step costs the CPU no more."""

    backend, device, runs_on = "none", "none", "a wait"

    def __init__(self, step_ms: float) -> None:
        state = StateSpec("ema30", (1, 1, 1))
        self.spec = ModelSpec("SalEMA30", *_HW, 1, "fp32", (state,), 0.1, "", "none", "", False, (), "")  # noqa: FBT003
        self.waited_s = 0.0
        self._step_s = step_ms / 1000
        rows, columns = np.mgrid[: _HW[0], : _HW[1]]
        self._map = np.hypot(rows - 96, columns - 128).astype(np.float32)[np.newaxis] / 400

    def step(self, frames: NDArray[np.uint8], states: Any, mix: NDArray[np.float32]) -> tuple[Any, Any]:  # noqa: ARG002
        """Waits; returns the same map each time."""
        start = time.perf_counter()
        time.sleep(self._step_s)
        self.waited_s += time.perf_counter() - start
        return self._map, states


@dataclass(frozen=True)
class Overlap:
    """Medians over the rounds, with mean milliseconds per frame of each stage.

    `wall_over_slowest` is wall time over the sum of the waits, or over the busiest stage's sum where that is more;
    `spread` is the distance between its quartiles.
    """

    step_ms: float
    frames: int
    size_hw: tuple[int, int]
    wall_over_slowest: float
    spread: float
    stage_ms: dict[str, float]


def measure_overlap(clip: Path, step_ms: float) -> Overlap:
    """Runs a clip in a loop, with an MP4 written, `ROUNDS` times."""
    ratios, stages = [], []
    (source,) = find_sources([str(clip)])
    for _ in range(ROUNDS):
        session = WaitingSession(step_ms)
        with (
            tempfile.TemporaryDirectory() as folder,
            SaliencyStream(session) as stream,
            Playback(source, Selection(loop=0, max_frames=FRAMES)) as playback,
        ):
            summary = process_video(stream, playback, Outputs(video=Path(folder) / "o.mp4"))
            size = (playback.height, playback.width)
        slowest = max(session.waited_s, *(ms * summary.frames / 1000 for ms in summary.stage_ms.values()))
        ratios.append(summary.seconds / slowest)
        stages.append(summary.stage_ms)
    low, middle, high = statistics.quantiles(ratios, n=4)
    stage_ms = {name: statistics.median(stage[name] for stage in stages) for name in stages[0]}
    return Overlap(step_ms, FRAMES, size, middle, high - low, stage_ms)


def main() -> None:
    """Measures and writes JSON."""
    results = [asdict(measure_overlap(Path(sys.argv[1]), step_ms)) for step_ms in STEPS_MS]
    write_study({"clip": Path(sys.argv[1]).name, "results": results})
    for result in results:
        print(result)


if __name__ == "__main__":
    main()
