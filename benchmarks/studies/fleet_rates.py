"""What a second worker, and a second job, gain on a machine: frames per second of a dataset, in turns.

`python -m salema.benchmarks.studies.fleet_rates MODEL SRC FILE.json`. SRC is a folder of folders of images, and each
worker, and each network of `--jobs`, has one core. The clock runs from the first frame that is done to the last: a
worker takes seconds to begin, whatever there is to do.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from salema.benchmarks.studies.common import write_by_cpu
from salema.runtime import load
from salema.runtime.fleet.cluster import Cluster, connected
from salema.runtime.fleet.fleet import Fleet, Size
from salema.runtime.fleet.worker import sent_model
from salema.runtime.model_folder import look_up
from salema.runtime.run.dataset import VideoWork, run_dataset, run_everywhere
from salema.runtime.run.dataset_layouts import FrameFolder, list_videos

BACKEND, ROUNDS = "onnxruntime", 3


@dataclass
class _Clock:
    """Times the frames that are done."""

    times_s: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def __call__(self, _videos: int, frames: int) -> None:
        if frames:
            self.times_s.append(time.perf_counter())
            self.counts.append(frames)

    @property
    def fps(self) -> float:
        """Frames per second, without those that came first."""
        return sum(self.counts[1:]) / (self.times_s[-1] - self.times_s[0])


def _here(model: Path, jobs: int, threads: int) -> Callable[[list[FrameFolder], _Clock], Any]:
    def run(videos: list[FrameFolder], clock: _Clock) -> Any:
        return run_dataset(videos, lambda: load(model, backend=BACKEND, threads=threads), jobs=jobs, progress=clock)

    return run


def _there(model: Path, cluster: Cluster, workers: int) -> Callable[[list[FrameFolder], _Clock], Any]:
    arguments = {"backend": BACKEND, "device": "cpu", "graphs": True, "threads": 1, "retune": False}

    def run(videos: list[FrameFolder], clock: _Clock) -> Any:
        shared = cluster.check(cluster.nodes(), [])
        fleet = Fleet(cluster, Size(workers, 1), sent_model(look_up(model), **arguments), shared, lambda _: None)
        return run_everywhere(videos, fleet, VideoWork(resume=False, map_size="network"), progress=clock)

    return run


def main() -> None:
    """Measures and writes JSON."""
    model, source = Path(sys.argv[1]), Path(sys.argv[2])
    fps: dict[str, list[float]] = {}
    loads: list[float] = []
    with connected("local") as cluster:
        cases = {
            "one video at a time, 1 thread": _here(model, 1, 1),
            "one video at a time, 2 threads": _here(model, 1, 2),
            "--jobs 2, 1 thread each": _here(model, 2, 1),
            "--jobs 2, 2 threads each": _here(model, 2, 2),
            "--ray, 1 worker": _there(model, cluster, 1),
            "--ray, 2 workers": _there(model, cluster, 2),
        }
        for _ in range(ROUNDS):
            for name, run in cases.items():
                with tempfile.TemporaryDirectory() as folder:
                    videos, clock = list_videos("other", source, Path(folder), "w"), _Clock()
                    assert not run(videos, clock).failed
                fps.setdefault(name, []).append(clock.fps)
                loads.append(os.getloadavg()[0])
                print(name, fps[name], flush=True)
    write_by_cpu(
        {
            "model": model.name,
            "backend": BACKEND,
            "videos": len(videos),
            "frames": sum(len(video.frames) for video in videos),
            "loads": loads,
            "fps": {name: {"median": statistics.median(rates), "rounds": rates} for name, rates in fps.items()},
        }
    )


if __name__ == "__main__":
    main()
