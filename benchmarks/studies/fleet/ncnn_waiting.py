"""How long ncnn's waiting threads should spin: steps of one process alone, and of two side by side.

`python -m salema.benchmarks.studies.fleet.ncnn_waiting DIR... FILE.json`; each DIR holds an exported model.
libgomp reads the number of turns once, when it is loaded, so each setting runs in its own processes. Settings take
turns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from salema.benchmarks.speed.harness import time_ms
from salema.benchmarks.studies.common import write_by_cpu
from salema.export.weights.seeded import moving_disc
from salema.runtime import load

ROUNDS, SECONDS, WARM_UP = 3, 1.0, 3
TURNS = (0, 300, 1_000, 10_000, 300_000)
"""The last is libgomp's own."""
_NAMES = {1: "alone", 2: "two side by side"}
_MODULE = "salema.benchmarks.studies.fleet.ncnn_waiting"


def measure(
    model: Path, turns: tuple[int, ...] = TURNS, rounds: int = ROUNDS, seconds: float = SECONDS
) -> dict[str, dict[str, list[float]]]:
    """Returns the median ms of a step in each process, by the number of processes, by the turns that threads spin."""
    medians_ms: dict[str, dict[str, list[float]]] = {
        name: {str(spins): [] for spins in turns} for name in _NAMES.values()
    }
    for _ in range(rounds):
        for spins in turns:
            for count, name in _NAMES.items():
                medians_ms[name][str(spins)] += _medians_ms(model, spins, count, seconds)
    return medians_ms


def _medians_ms(model: Path, spins: int, count: int, seconds: float) -> list[float]:
    """Returns the median of each of so many processes, which step at the same time."""
    command = [sys.executable, "-c", f"from {_MODULE} import step; step()", str(model), str(seconds)]
    setting = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": str(spins)}
    with ExitStack() as opened:
        running = [opened.enter_context(_started(command, {**os.environ, **setting})) for _ in range(count)]
        talks = [(process.stdin, process.stdout) for process in running if process.stdin and process.stdout]
        for _, says in talks:
            says.readline()  # it has loaded its model
        for told, _ in talks:
            told.write("go\n")
            told.flush()
        return [float(says.readline()) for _, says in talks]


def _started(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)  # noqa: S603 - this module


def step() -> None:
    """Runs in a process of its own: says that the model is loaded, waits to be told, and prints the median ms."""
    with load(sys.argv[1], backend="ncnn", device="cpu") as stream:
        frames = moving_disc(1, stream.spec.height, stream.spec.width)
        for _ in range(WARM_UP):
            stream.infer(frames)
        print("ready", flush=True)
        sys.stdin.readline()
        times, until_s = list[float](), time.monotonic() + float(sys.argv[2])
        while not times or time.monotonic() < until_s:
            times.append(time_ms(lambda: stream.infer(frames)))
    print(statistics.median(times))


def main() -> None:
    """Measures, prints and writes JSON."""
    found = {Path(model).name: measure(Path(model)) for model in sys.argv[1:-1]}
    for model, cases in found.items():
        for name, medians_ms in cases.items():
            for spins, times in medians_ms.items():
                middle, least, most = statistics.median(times), min(times), max(times)
                print(f"{model}, {name}, {spins} turns: {middle:.1f} ms ({least:.1f} to {most:.1f})")
    write_by_cpu({"rounds": ROUNDS, "seconds": SECONDS, "median_ms": found})


if __name__ == "__main__":
    main()
