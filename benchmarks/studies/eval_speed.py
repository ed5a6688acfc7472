"""How fast `salema-eval` is as a command: `python -m salema.benchmarks.studies.eval_speed FILE.json`.

It runs the whole command under each protocol and `published_loop.py` in turns, imports and reading included, and takes
the time by the clock on all cores, of which the peer uses one, and the CPU time on one core. One video in DHF1K's
layout with 30 and with 200 frames (maps 192x256, ground truth 640x360, 50 fixations a frame) is scored beside 60 others
of 5 frames, which s-AUC draws from.
The peer computes the five metrics of the published table at 320x180; `salema-eval` also computes KL and AUC-Borji, and
under `dhf1k` and `exact` everything at 640x360. `ratio` is against the peer with the published script's imports, as far
as they are installed; `lean_ratio` is against the peer without those that it doesn't need; `whole_ratio` is against
the peer that scores at 640x360 too. A run beside other work is tried again.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.metrics.protocols import PROTOCOLS
from salema.benchmarks.speed.harness import summarise
from salema.benchmarks.studies.common import take_one_core, write_by_cpu
from salema.benchmarks.studies.published_loop import LEAN, WHOLE, import_as_published
from salema.runtime.files.whole_files import make_folder

ROUNDS = 3
FRAMES = (30, 200)
OTHER_VIDEOS, OTHER_FRAMES = 60, 5
FIXATIONS = 50
CLOCK, CPU = KINDS = ("by the clock", "CPU, one core")
OTHERS = "other work, cores"
TRIES, MOST_OTHERS = 8, 0.05  # a run beside more other work than that is tried again
PEER = "published loop"
LEAN_PEER = "published loop without unused imports"
WHOLE_PEER = "published loop at 640x360"
TIMES = "\N{MULTIPLICATION SIGN}"
_SIZE_HW, _NETWORK_HW = (360, 640), (192, 256)


def write_data(root: Path, frames: int) -> None:
    """Writes `root/DHF1K/annotation` and `root/pred`."""
    draw = np.random.default_rng(0)
    for video in range(1, OTHER_VIDEOS + 2):
        truth = root / f"DHF1K/annotation/{video:04d}"
        for index in range(1, (frames if video == 1 else OTHER_FRAMES) + 1):
            places = _places(draw)
            _write(truth / f"fixation/{index:04d}.png", places * np.uint8(255))
            _write(truth / f"maps/{index:04d}.png", _blurred(places, 18))
            if video == 1:
                small = cv2.resize(_blurred(_places(draw), 25), _NETWORK_HW[::-1], interpolation=cv2.INTER_AREA)
                _write(root / f"pred/{video:04d}/{index:04d}.png", np.asarray(small, np.uint8))


def _places(draw: np.random.Generator) -> NDArray[np.uint8]:
    rows, columns = (draw.normal(size / 2, size / 6, FIXATIONS).clip(0, size - 1).astype(int) for size in _SIZE_HW)
    places = np.zeros(_SIZE_HW, np.uint8)
    places[rows, columns] = 1
    return places


def _blurred(places: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    blurred = np.asarray(cv2.GaussianBlur(places.astype(np.float32), (0, 0), width))
    grey: NDArray[np.uint8] = np.rint(blurred / blurred.max() * 255).astype(np.uint8)
    return grey


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    make_folder(path.parent)
    cv2.imwrite(str(path), image)


def commands(root: Path) -> dict[str, list[str]]:
    """Returns the commands to time, by name."""
    pred, home = root / "pred", root / "DHF1K"
    program = shutil.which("salema-eval", path=str(Path(sys.executable).parent)) or "salema-eval"
    ours = [program, "--pred", str(pred), "--gt", str(home), "--dataset", "DHF1K", "--end", "1"]
    peer = [
        sys.executable,
        "-m",
        "salema.benchmarks.studies.published_loop",
        str(pred),
        str(home / "annotation"),
        "0001",
    ]
    peers = {PEER: peer, LEAN_PEER: [*peer, LEAN], WHOLE_PEER: [*peer, WHOLE]}
    return peers | {name: [*ours, "--protocol", name] for name in PROTOCOLS}


def took_ms(command: list[str]) -> dict[str, float]:
    """Runs a command; returns the ms by the clock, and the CPU time in ms of all its threads and processes.

    Of other processes it returns how many cores they took meanwhile; 0 where that is not known.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, begun, busy_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), _busy_s()
    subprocess.run(command, check=True, capture_output=True, env=environment)  # noqa: S603 - our own
    clock, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {CLOCK: 1e3 * clock, CPU: 1e3 * cpu, OTHERS: max(_busy_s() - busy_s - cpu, 0) / clock}


def _busy_s() -> float:
    """Returns how long all cores were busy since the machine began, in s; 0 where that is not known."""
    try:
        user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split()[1:9])
    except OSError:
        return 0
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def took_alone(command: list[str]) -> dict[str, float]:
    """Runs a command until little else runs meanwhile; returns what `took_ms` does of the run beside least."""
    tries: list[dict[str, float]] = []
    while len(tries) < TRIES and min((tried[OTHERS] for tried in tries), default=1) > MOST_OTHERS:
        tries.append(took_ms(command))
    return min(tries, key=lambda tried: tried[OTHERS])


def table(timings: dict[str, dict[str, Any]]) -> str:
    """Returns the table of `docs/scores.md`: seconds, and the peer's over them.

    Those of the lean peer are in brackets; behind `/` is the peer that scores at 640x360, where it was measured.
    """
    names = " | ".join(f"`{name}`" for name in PROTOCOLS)
    rows = [f"| frames | time | published script | {names} |", "|---" * 6 + "|"]
    for frames in FRAMES:
        for kind in (kind for kind in KINDS if f"{PEER}, {frames} frames, {kind}" in timings):
            cases = (PEER, LEAN_PEER, WHOLE_PEER, *PROTOCOLS)
            found = {name: timings.get(f"{name}, {frames} frames, {kind}", {}) for name in cases}
            cells = [_peers(found), *(_cell(found[name], name) for name in PROTOCOLS)]
            rows.append(f"| {frames} | {kind} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _peers(found: dict[str, dict[str, Any]]) -> str:
    halved, lean, *whole = (found[name]["median_ms"] / 1e3 for name in (PEER, LEAN_PEER, WHOLE_PEER) if found[name])
    return f"{halved:.1f} s ({lean:.1f} s)" + "".join(f" / {seconds:.1f} s" for seconds in whole)


def _cell(own: dict[str, Any], name: str) -> str:
    cell = f"{own['median_ms'] / 1e3:.2f} s, {own['ratio']:.1f} {TIMES} ({own['lean_ratio']:.1f} {TIMES})"
    if "whole_ratio" not in own or PROTOCOLS[name].halved:
        return cell
    return f"{cell} / {own['whole_ratio']:.1f} {TIMES}"


def _measure(frames: int, kind: str) -> dict[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), frames)
        cases = commands(Path(folder))
        for command in cases.values():
            took_ms(command)  # writes byte code, and brings files into memory
        times: dict[str, list[list[float]]] = {name: [] for name in cases}
        others = dict.fromkeys(cases, 0.0)
        for _ in range(ROUNDS):
            for name, command in cases.items():
                took = took_alone(command)
                times[name].append([took[kind]])
                others[name] = max(others[name], took[OTHERS])
    ratios = {"lean_ratio": summarise(times, LEAN_PEER), "whole_ratio": summarise(times, WHOLE_PEER)}
    return {
        name: asdict(timing)
        | {ratio: timings[name].ratio for ratio, timings in ratios.items()}
        | {"most_other_work_cores": round(others[name], 3)}
        for name, timing in summarise(times, PEER).items()
    }


def main() -> None:
    """Measures, prints and writes JSON."""
    timings = {}
    for kind in KINDS:
        if kind == CPU:  # the last kind: it can't be undone
            take_one_core()
        for frames in FRAMES:
            for name, timing in _measure(frames, kind).items():
                timings[f"{name}, {frames} frames, {kind}"] = timing
                ratio = f"{timing['ratio']:.1f} x ({timing['ratio_low']:.1f} to {timing['ratio_high']:.1f})"
                print(f"{frames:4d} frames  {kind:13s}  {name:38s} {timing['median_ms']:8.0f} ms  {ratio}", end="")
                print(f", lean {timing['lean_ratio']:.1f} x, whole {timing['whole_ratio']:.1f} x", end="")
                print(f", beside {timing['most_other_work_cores']:.2f}", flush=True)
    print(table(timings))
    write_by_cpu({"rounds": ROUNDS, "not_installed": import_as_published(), "timings": timings})


if __name__ == "__main__":
    main()
