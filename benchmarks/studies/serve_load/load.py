"""Good and bad clients at one server: `python -m salema.benchmarks.studies.serve_load.load MODEL CLIP FILE.json`.

First the good ones are alone, then the bad ones come too, and go again: slow readers, some that vanish, that lie, that
flood. Each good client sends frames of its own and compares every map with those of `load`: one that differs means a
lost or mixed state. `ratio` is the latency of the good ones beside the bad ones over that without; the bad ones run at
the lowest priority, as they would be on other machines. Memory is the server's resident set, by the second. The file
keeps the runs before: what else the machine does moves the 99th percentile from run to run.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from salema.benchmarks.studies.common import write_next
from salema.benchmarks.studies.serve_load.clients import FRAMES, Seen, frames_of
from salema.runtime import load
from salema.runtime.postprocess import to_grey

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD = {"steady": 20, "watcher": 10}
BAD = {"slow": 5, "vanishing": 5, "lying": 5, "flooding": 5}
RATE, SECONDS, ALONE_S = 0.5, 60.0, 30.0
_SAMPLE_S = 0.5


@contextmanager
def served(model: Path, clip: Path) -> Iterator[tuple[int, int]]:
    """Runs the command; gives its process and port.

    Raises:
        RuntimeError: it did not end in order.
    """
    command = [str(Path(sys.executable).with_name("salema-serve")), "--port", "0", "--max-streams", "50"]
    line = [*command, "--max-viewers", "50", "--model", str(model), "--source", str(clip)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stdout is not None
    try:
        yield process.pid, int(process.stdout.readline().rstrip("/\n").rpartition(":")[2])
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.close()
        code = process.wait(30)
    if code:
        raise RuntimeError(f"salema-serve ended with exit code {code}")


def crowd(port: int, seconds: float, rate: float, kinds: dict[str, int], *, lowest: bool) -> subprocess.Popen[str]:
    """Starts clients in a process of their own."""
    words = [str(port), str(seconds), str(rate), json.dumps(kinds)]
    line = [sys.executable, "-m", "salema.benchmarks.studies.serve_load.clients", *words]
    nice = ["nice", "-n", "19"] if lowest else []
    return subprocess.Popen([*nice, *line], stdout=subprocess.PIPE, text=True)  # noqa: S603


def seen_by(process: subprocess.Popen[str]) -> Seen:
    """Waits for clients, and returns what they have seen."""
    out, _ = process.communicate()
    found = json.loads(out)
    found["maps"] = {int(seed): maps for seed, maps in found["maps"].items()}
    return Seen(**found)


def wrong_maps(model: Path, seen: Seen) -> int:
    """Counts the maps that differ from those of the same frames in a stream of their own."""
    wrong = 0
    with load(model) as stream:
        for seed, maps in seen.maps.items():
            stream.reset()
            frames = frames_of(seed)
            for index, found in enumerate(maps):
                expected = to_grey(stream.step(frames[index % FRAMES]))
                data = np.frombuffer(bytes.fromhex(found), np.uint8)
                image = np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))
                wrong += int(np.abs(image.astype(int) - expected).max() > 1)
    return wrong


class Memory(threading.Thread):
    """Samples a process's resident set, in MB, until it is stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._statm = Path(f"/proc/{pid}/statm")
        self.stop = threading.Event()
        self.samples_mb: list[float] = []

    def run(self) -> None:
        """Samples."""
        while not self.stop.wait(_SAMPLE_S):
            pages = int(self._statm.read_text().split()[1])
            self.samples_mb.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    def growth(self) -> float:
        """Returns the last third's median over that of the second third."""
        third = len(self.samples_mb) // 3
        return statistics.median(self.samples_mb[2 * third :]) / statistics.median(self.samples_mb[third : 2 * third])


def measure(
    port: int, pid: int, model: Path, seconds: float, bad: dict[str, int]
) -> tuple[dict[str, Any], list[float]]:
    """Runs the good clients, with bad ones beside them; returns what came of it, and the latencies in ms."""
    memory = Memory(pid)
    others = crowd(port, seconds, RATE, bad, lowest=True) if bad else None
    good = crowd(port, seconds, RATE, GOOD, lowest=False)
    memory.start()
    seen = seen_by(good)
    refused = seen_by(others).refused if others else {}
    memory.stop.set()
    memory.join()
    record = {
        "seconds": seconds,
        "clients": {**GOOD, **bad},
        "maps": len(seen.latencies_ms),
        "maps_wrong": wrong_maps(model, seen),
        "pictures": seen.pictures,
        "lost": seen.lost,
        "refused": refused,
        "latency_ms": percentiles(seen.latencies_ms),
        "memory_mb": [round(value, 1) for value in memory.samples_mb[:: round(5 / _SAMPLE_S)]],
        "memory_growth": round(memory.growth(), 3),
    }
    return record, seen.latencies_ms


def percentiles(latencies_ms: list[float]) -> dict[str, float]:
    """Returns the latencies that half, nine tenths and 99 of 100 do not exceed."""
    return {f"p{share}": round(float(np.percentile(latencies_ms, share)), 1) for share in (50, 90, 99)}


def main() -> None:
    """Measures, and writes the record."""
    model, clip = Path(sys.argv[1]), Path(sys.argv[2])
    with served(model, clip) as (pid, port):
        measure(port, pid, model, 5, {})  # warm
        before, early_ms = measure(port, pid, model, ALONE_S, {})
        together, _ = measure(port, pid, model, SECONDS, BAD)
        after, late_ms = measure(port, pid, model, ALONE_S, {})
    alone_ms = percentiles(early_ms + late_ms)
    ratio = {share: round(value / alone_ms[share], 2) for share, value in together["latency_ms"].items()}
    parts = {"alone_before": before, "together": together, "alone_after": after}
    write_next({"rate": RATE, **parts, "alone_latency_ms": alone_ms, "ratio": ratio})


if __name__ == "__main__":
    main()
