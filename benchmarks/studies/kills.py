"""What a run loses when it is killed: `python -m salema.benchmarks.studies.kills VIDEO --model DIR`."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from salema.runtime.errors import VideoError
from salema.runtime.output.recovery import recover_folder
from salema.runtime.video.mp4 import count_pictures
from salema.runtime.wording import counted

_OUTPUTS = ("-o", "o.mp4", "--npz", "o.npz", "--csv", "o.csv", "--maps", "maps")
_START_S = 60


def kill_once(command: Sequence[str], folder: Path, after_s: float) -> dict[str, float]:
    """Starts a run, kills it some time after its first map, recovers its files, and returns what is lost.

    `command` is `salema-run` with its arguments, but for outputs; `folder` is an empty one.

    Returns:
        The number of maps on the disk as PNG; how many fewer frames, maps and lines the MP4, NPZ and CSV hold; and the
        lost frames in seconds of video.

    Raises:
        VideoError: the run ended, or had not begun within a minute.
    """
    _run_and_kill(command, folder, after_s)
    maps = sum(not path.name.startswith(".") for path in (folder / "maps").iterdir())
    recover_folder(folder)
    frames = count_pictures(folder / "o.recovered-1.mp4")  # 0 if it was killed before the first fragment
    with np.load(folder / "o.recovered-1.npz") as archive:
        raw, times_s = len(archive["maps"]), archive["times_s"]
    frame_s = float(np.median(np.diff(times_s, append=times_s[-1:])))
    lines = len((folder / "o.recovered-1.csv").read_text().splitlines()) - 1
    return {
        "maps": maps,
        "lost_frames": maps - frames,
        "lost_s": round((maps - frames) * frame_s, 3),
        "lost_maps": maps - raw,
        "lost_lines": maps - lines,
    }


def _run_and_kill(command: Sequence[str], folder: Path, after_s: float) -> None:
    with subprocess.Popen(  # noqa: S603
        [*command, *_OUTPUTS], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        begun_s = time.monotonic()
        while not (folder / "maps/0001.png").exists():
            if process.poll() is not None or time.monotonic() - begun_s > _START_S:
                process.kill()
                raise VideoError(f"{' '.join(command)}: ended, or did not begin in {_START_S} s; run it by hand")
            time.sleep(0.01)
        time.sleep(after_s)
        process.kill()


def main() -> None:
    """Kills runs of a video that loops for ever; prints a line of JSON for each, then the largest losses."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("video", help="a video file, or an RTSP or HTTP stream")
    parser.add_argument("--model", required=True, type=Path, help="folder that salema-export wrote")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest-s", type=float, default=8, help="the latest moment, after the first map")
    given = parser.parse_args()
    program = str(Path(sys.executable).with_name("salema-run"))
    video = str(Path(given.video).resolve()) if Path(given.video).exists() else given.video
    endless = ["--loop", "0"] if Path(given.video).exists() else []
    command = [program, video, "--model", str(given.model.resolve()), *endless]
    moments, results = random.Random(0), list[dict[str, float]]()  # noqa: S311 - no secrets
    for _ in range(given.kills):
        with tempfile.TemporaryDirectory() as folder:
            results.append(kill_once(command, Path(folder), moments.uniform(0, given.longest_s)))
            print(json.dumps(results[-1]), flush=True)
    worst = {f"most_{key}": max(result[key] for result in results) for key in results[0] if key.startswith("lost")}
    print(json.dumps({"kills": len(results), **worst}))
    print(f"{counted(len(results), 'kill')}: at most {worst['most_lost_s']:.2f} s of video lost", file=sys.stderr)


if __name__ == "__main__":
    main()
