"""How long a start takes, from the process to the first map: each start in a process of its own, as a user has it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from salema.runtime.errors import BackendError

STARTS = 3
PARTS = ("python", "imports", "model", "first frame")
# It imports what salema-run imports for a video. Each line's clock is the machine's, so the parent can read it too.
_CODE = """
import time
times = [time.monotonic()]
import json, sys
from salema.runtime import load
from salema.runtime.cli import opening, run, run_modes
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import find_sources
times.append(time.monotonic())
folder, backend, device, source = sys.argv[1:]
stream = load(folder, backend=backend, device=device)
times.append(time.monotonic())
with Playback(find_sources([source])[0], Selection(max_frames=1)) as playback:
    for frame in playback:
        stream.step(frame.image_bgr)
times.append(time.monotonic())
print(json.dumps(times))
"""


def start_ms(folder: Path, backend: str, device: str, source: str) -> dict[str, float]:
    """Starts a model on the first frame of a video or folder of frames a few times.

    If `backend` is `auto`, its trial is there already.

    Returns:
        Median ms of each of `PARTS`, and of all as `total`.

    Raises:
        BackendError: it does not start.
    """
    starts = [_start(str(folder), backend, device, source) for _ in range(STARTS)]
    parts = {part: statistics.median(start[part] for start in starts) for part in PARTS}
    return {**parts, "total": statistics.median(sum(start.values()) for start in starts)}


def _start(*arguments: str) -> dict[str, float]:
    before = time.monotonic()
    command = [sys.executable, "-c", _CODE, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own code
    if ran.returncode:
        *_, why = ran.stderr.strip().splitlines() or ["no reason is told"]
        raise BackendError(f"{arguments[0]}: it does not start in a new process: {why}")
    times = [before, *json.loads(ran.stdout)]
    return {part: 1e3 * (end - start) for part, (start, end) in zip(PARTS, pairwise(times), strict=True)}
