"""How fast shipped weights run from a video file to an H.264 file, in FP32 on each backend, in turns.

Usage: python -m salema.training.shipping.run_speed --video FILE FILE.json
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from salema.benchmarks.studies.common import write_study
from salema.export.weights.checkpoints import shipped_names
from salema.training.shipping.commands import parser_of, run

ROUNDS = 3
FORMS = {"onnxruntime": "any", "openvino": "any", "ncnn": "ncnn"}  # what runs it, and what it is exported for


def measure(name: str, video: Path, folder: Path) -> dict[str, Any]:
    """Measures shipped weights; returns frames per second by backend: of each run, and their median."""
    for form in set(FORMS.values()):
        run("salema-export", "--weights", name, "--for", form, "-o", folder / form)
    fps: dict[str, list[float]] = {backend: [] for backend in FORMS}
    for _ in range(ROUNDS):
        for backend, form in FORMS.items():
            options = ("--model", folder / form, "--backend", backend, "-o", folder / "out.mp4", "--json")
            fps[backend].append(json.loads(run("salema-run", video, *options))["fps"])
    return {backend: {"fps": values, "median": median(values)} for backend, values in fps.items()}


def main() -> None:
    """Measures all weights that ship, and writes JSON."""
    parser = parser_of(__doc__, of_photographs=False)
    parser.add_argument("--video", type=Path, required=True, help="video to run on")
    parser.add_argument("file", metavar="FILE.json")
    video = parser.parse_args().video
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measure(name, video, Path(folder) / name) for name in shipped_names()}
    write_study({"video": video.name, "rounds": ROUNDS, "runs": found})


if __name__ == "__main__":
    main()
