"""What a second worker, and a second job, gain on a machine: frames per second of a dataset, in turns.

`python -m salema.benchmarks.studies.fleet_rates MODEL SRC FILE.json`. SRC is a folder of folders of images, and each
worker, and each network of `--jobs`, has one core. Counted are the frames from 40 to 90 % of a run: before, workers
begin, and after, some have nothing left to do.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from salema.benchmarks.studies.common import write_by_cpu
from salema.runtime import load
from salema.runtime.fleet.cluster import Cluster, connected
from salema.runtime.fleet.fleet import Fleet
from salema.runtime.fleet.size import Size
from salema.runtime.fleet.worker import sent_model
from salema.runtime.model_folder import look_up
from salema.runtime.run.dataset import Here, run_dataset
from salema.runtime.run.dataset_layouts import FrameFolder, list_videos

BACKEND, ROUNDS, WINDOW = "onnxruntime", 3, (0.4, 0.9)


@dataclass
class _Clock:
    """Times the frames that are done."""

    seen: list[tuple[int, float, float]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def __call__(self, _videos: int, frames: int) -> None:
        with self.lock:
            done = self.seen[-1][0] if self.seen else 0
            self.seen.append((done + frames, time.perf_counter(), _cpu_s()))

    def rates(self, frames: int) -> tuple[float, float]:
        """Returns frames per second, and seconds of CPU time per frame."""
        first = next(each for each in self.seen if each[0] >= WINDOW[0] * frames)
        last = next(each for each in self.seen if each[0] >= WINDOW[1] * frames)
        count = last[0] - first[0]
        return count / (last[1] - first[1]), (last[2] - first[2]) / count


def _cpu_s() -> float:
    """Returns the CPU time of this process, and of the workers of Ray that run."""
    ticks = 0
    for process in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if process.name.isdecimal() and (process / "cmdline").read_bytes().startswith(b"ray::Worker"):
                ticks += sum(map(int, (process / "stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK") + time.process_time()


def _here(model: Path, jobs: int, threads: int) -> Callable[[list[FrameFolder], _Clock], Any]:
    def run(videos: list[FrameFolder], clock: _Clock) -> Any:
        return run_dataset(videos, Here(lambda: load(model, backend=BACKEND, threads=threads), jobs), progress=clock)

    return run


def _there(model: Path, cluster: Cluster, workers: int) -> Callable[[list[FrameFolder], _Clock], Any]:
    arguments = {"backend": BACKEND, "device": "cpu", "graphs": True, "threads": 1, "retune": False}

    def run(videos: list[FrameFolder], clock: _Clock) -> Any:
        shared = cluster.check(cluster.nodes(), [])
        fleet = Fleet(cluster, Size(workers, 1), sent_model(look_up(model), **arguments), shared, lambda _: None)
        return run_dataset(videos, fleet, progress=clock)

    return run


def main() -> None:
    """Measures and writes JSON."""
    model, source = Path(sys.argv[1]), Path(sys.argv[2])
    found: dict[str, dict[str, list[float]]] = {}
    loads: list[float] = []
    with connected("local") as cluster:
        cases = {
            "one video at a time, 2 threads": _here(model, 1, 2),
            "--jobs 2, 1 thread each": _here(model, 2, 1),
            "--ray, 1 worker": _there(model, cluster, 1),
            "--ray, 2 workers": _there(model, cluster, 2),
        }
        for _ in range(ROUNDS):
            for name, run in cases.items():
                with tempfile.TemporaryDirectory() as folder:
                    videos, clock = list_videos("other", source, Path(folder), "w"), _Clock()
                    assert not run(videos, clock).failed
                frames = sum(len(video.frames) for video in videos)
                for kind, rate in zip(("fps", "cpu_s_per_frame"), clock.rates(frames), strict=True):
                    found.setdefault(name, {}).setdefault(kind, []).append(rate)
                loads.append(os.getloadavg()[0])
                print(name, found[name], flush=True)
    medians = {name: {kind: statistics.median(rates) for kind, rates in kinds.items()} for name, kinds in found.items()}
    facts = {"model": model.name, "backend": BACKEND, "videos": len(videos), "frames": frames, "window": WINDOW}
    write_by_cpu({**facts, "loads": loads, "medians": medians, "rounds": found})


if __name__ == "__main__":
    main()
