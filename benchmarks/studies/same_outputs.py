"""Whether the same commands give the same files at two commits of this repository.

Usage: python -m salema.benchmarks.studies.same_outputs BEFORE [AFTER]
It runs both side by side, in 8 minutes of CPU time. Weights are seeded, sources are made here. Every run names its
backend: what `auto` chooses depends on its trial's times.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.studies.same_files import compare

ROOT = Path(__file__).resolve().parents[2]
FPS, FRAMES, SIZE_HW = 25, 48, (72, 128)
FIRST_VIDEO, VIDEOS, VIDEO_FRAMES = 701, 4, 4
EXPORTS = {
    "ema": "--weights seeded:16 --save-weights export/ema.safetensors",
    "residual": "--weights seeded:16 --residual",
    "double": "--weights seeded:16 --ema-loc 7 --ema-loc 54 --alpha 0.2 --alpha-sigmoid",
    "salgan": "--weights seeded:16 --arch salgan --for openvino",
    "clstm": "--weights seeded:16 --arch salclstm30",
    "split": "--weights seeded:16 --split",
    "fp16": "--weights export/ema.safetensors --fp16",
    "batch": "--weights seeded:16 --batch dynamic --for onnxruntime",
    "int8": "--weights seeded:4 --int8 --calib ../inputs/videos/1.mp4 --calib-frames 24",
    "ncnn": "--weights seeded:16 --for ncnn",
    "ncnn-int8": "--weights seeded:4 --int8 --calib ../inputs/videos/1.mp4 --calib-frames 24 --for ncnn",
}
# By name: model, source, options. Every model also runs the first video without options.
RUNS = {
    "cuts": ("ema", "videos/2.mp4", "--reset-on-cut --view side-by-side"),
    "running": ("ema", "videos/2.mp4", "--normalise running --opacity 0.3"),
    "none": ("ema", "videos/2.mp4", "--normalise none --view map --colormap turbo --map-bits 16"),
    "source-size": ("ema", "videos/2.mp4", "--map-size source"),
    "time-aware": ("ema", "videos/2.mp4", "--time-aware --vid-stride 2 --reference-fps 25"),
    "part": ("residual", "videos/2.mp4", "--start-time 0.4 --duration 0.8 --loop 2"),
    "openvino": ("salgan", "videos/2.mp4", ""),
    "images": ("double", "DHF1K/frames/701", "--fps 10"),
}
PREDICTIONS = {  # by folder of the maps: model, options
    "published": ("ema", "--dataset DHF1K --src ../inputs/DHF1K"),
    "source-size": ("ema", "--dataset DHF1K --src ../inputs/DHF1K --map-size source --naming groundtruth"),
    "ncnn": ("ncnn", "--dataset DHF1K --src ../inputs/DHF1K --start 702 --end 703"),
    "ucf": ("residual", "--dataset UCF-sports --src ../inputs/UCF-sports --naming groundtruth"),
}
_OF_DHF1K = "--dataset DHF1K --gt ../inputs/DHF1K"
EVALUATIONS = {
    "salema": f"{_OF_DHF1K} --pred maps/published --published",
    "dhf1k": f"{_OF_DHF1K} --pred maps/source-size --protocol dhf1k --seed 7",
    "exact": f"{_OF_DHF1K} --pred maps/published --protocol exact --compare maps/source-size",
    "model": f"{_OF_DHF1K} --model export/batch --backend onnxruntime --src ../inputs/DHF1K --protocol exact",
    "ucf": "--dataset UCF-sports --gt ../inputs/UCF-sports --pred maps/ucf --protocol exact",
}
_STREAMS = """
import numpy as np
from salema.runtime import load
frames = np.random.default_rng(1).integers(0, 256, (6, 2, 40, 60, 3), np.uint8)
with load("export/batch", backend="onnxruntime", streams=2) as stream:
    np.savez("streams.npz", maps=[stream.step_batch(list(pair)) for pair in frames])
"""
# Runs code with one commit's packages only.
_START = """
import pathlib, sys
tree, code, *sys.argv = sys.argv[1:]
try:
    exec(code)
finally:
    ours = [m.__file__ for name, m in sys.modules.items() if name.startswith("salema.") and m.__file__]
    if astray := [file for file in ours if not pathlib.Path(file).resolve().is_relative_to(tree)]:
        sys.exit(f"{astray[0]}: imported from outside the commit's folder")
"""


def backend_of(model: str) -> str:
    """Returns the backend that runs a model of `EXPORTS`."""
    return {"ncnn": "ncnn", "ncnn-int8": "ncnn", "salgan": "openvino"}.get(model, "onnxruntime")


def check_out(revision: str, tree: Path) -> None:
    """Writes a commit's files, and in `.packages` links to its packages by the names they are imported under."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", revision], capture_output=True, check=False)  # noqa: S603, S607
    if archive.returncode:
        sys.exit(f"{revision}: git archive failed: {archive.stderr.decode().strip()}; give a commit of this repository")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(tree, filter="data")
    (tree / ".packages/salema").mkdir(parents=True)
    for package in tree.glob("*/__init__.py"):
        (tree / ".packages/salema" / package.parent.name).symlink_to(package.parent)


def commands() -> Iterator[tuple[str, str]]:
    """Yields the commands in order, each with the file for its standard output, if that is data."""
    for name, options in EXPORTS.items():
        size = "32 48" if "int8" in name else "64 96"
        yield f"salema-export {options} --imgsz {size} --engine none --json -o export/{name}", f"export/{name}.jsonl"
    runs = {**{f"{name}-model": (name, "videos/1.mp4", "") for name in EXPORTS}, **RUNS}
    for name, (model, source, options) in runs.items():
        files = f"-o run/{name}.mp4 --maps run/{name} --npz run/{name}.npz --csv run/{name}.csv --json"
        given = f"--model export/{model} --backend {backend_of(model)} {options}"
        yield f"salema-run ../inputs/{source} {given} {files}", f"run/{name}.jsonl"
    files = "-o run/all --maps run/all-maps --npz run/all-npz --csv run/all-csv"
    yield f"salema-run ../inputs/videos --model export/split --backend {backend_of('split')} --jobs 2 {files}", ""
    for folder, (model, options) in PREDICTIONS.items():
        given = f"--model export/{model} --backend {backend_of(model)} {options}"
        yield f"salema-run {given} --dst maps/{folder} --json", f"{folder}.jsonl"
    for name, options in EVALUATIONS.items():
        yield f"salema-eval {options} --json eval/{name}.json --csv eval/{name}.csv --plot eval/{name}.png", ""
    videos = f"--start {FIRST_VIDEO} --end {FIRST_VIDEO + VIDEOS - 1}"
    yield f"salema-eval pack --pred maps/source-size --src ../inputs/DHF1K {videos} -o eval/submission.zip", ""
    yield "salema-bench report ../inputs/records.jsonl --plot bench.png", "bench.md"


def run_all(tree: Path, outputs: Path) -> list[str]:
    """Runs all commands of a commit in a new folder; returns a line for each that failed."""
    project = (tree / "pyproject.toml").read_text("utf-8")
    scripts = re.findall(r'^(salema-\w+) = "([\w.]+):(\w+)"$', project, re.MULTILINE)
    entries = {name: f"from {module} import {function}; {function}()" for name, module, function in scripts}
    environment = {**os.environ, "PYTHONPATH": str(tree / ".packages")}
    failed = []
    for name in ("export", "run", "eval"):
        (outputs / name).mkdir(parents=True)
    for text, output in [*commands(), ("", "")]:
        code = entries[text.split()[0]] if text else _STREAMS
        command = [sys.executable, "-c", _START, str(tree), code, *text.split()]
        ran = subprocess.run(command, cwd=outputs, env=environment, capture_output=True, check=False)  # noqa: S603
        if ran.returncode:
            reason = ran.stderr.decode(errors="replace").strip().splitlines()[-1:]
            failed.append(f"{text or 'two streams'}: exit {ran.returncode}: {reason}")
        if output:
            (outputs / output).write_bytes(ran.stdout)
    return failed


def write_inputs(folder: Path, records: Path) -> None:
    """Writes what the commands read: two videos of two shots with sound, two datasets, and records of a benchmark."""
    for number in (1, 2):
        write_video(folder / f"videos/{number}.mp4", np.concatenate([shot(number, FRAMES // 2), shot(9, FRAMES // 2)]))
    rng = np.random.default_rng(0)
    for video in range(FIRST_VIDEO, FIRST_VIDEO + VIDEOS):
        dhf1k, ucf = folder / "DHF1K", folder / f"UCF-sports/Diving-Side-{video}"
        for index, frame in enumerate(shot(video, VIDEO_FRAMES), 1):
            looked_at = np.zeros(SIZE_HW, np.uint8)
            looked_at[rng.integers(0, SIZE_HW[0], 12), rng.integers(0, SIZE_HW[1], 12)] = 255
            density = cv2.GaussianBlur(looked_at, (0, 0), 2)
            for images, truth in (
                (dhf1k / f"frames/{video}", dhf1k / f"annotation/{video:04d}"),
                (ucf / "images", ucf),
            ):
                for place, image in ((images, frame), (truth / "maps", density), (truth / "fixation", looked_at)):
                    place.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(place / f"{index:04d}.png"), image)
    shutil.copy(records, folder / "records.jsonl")


def shot(seed: int, frames: int) -> NDArray[np.uint8]:
    """Returns drifting patches of colour, uint8 BGR `(frames, *SIZE_HW, 3)`."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    picture = cv2.resize(patches, SIZE_HW[::-1], interpolation=cv2.INTER_CUBIC)
    return np.stack([np.roll(picture, (index, 2 * index), (0, 1)) for index in range(frames)])


def write_video(path: Path, frames: NDArray[np.uint8]) -> None:
    """Writes an MP4 with a tone as long as its frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        # With B-frames and its macroblock tree x264 (165) isn't deterministic on a CPU with AVX-512.
        video = container.add_stream("libx264", rate=FPS, options={"crf": "10", "x264-params": "mbtree=0"})
        video.height, video.width, video.pix_fmt = *SIZE_HW, "yuv420p"
        sound = container.add_stream("aac", rate=48000, layout="mono")
        for image in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
        container.mux(video.encode(None))
        tone = np.sin(np.arange(48000 * len(frames) // FPS) * 0.0576, dtype=np.float32)
        samples = av.AudioFrame.from_ndarray(tone[None], "fltp", "mono")
        samples.sample_rate, samples.pts, samples.time_base = 48000, 0, Fraction(1, 48000)
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))


def main() -> None:
    """Runs the commands at both commits and prints a line for each file; exits with 1 if any differs or is missing."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", nargs="?", default="HEAD", help="a commit [default: HEAD]")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder where inputs and outputs stay")
    given = parser.parse_args()
    if given.keep and given.keep.exists():
        parser.error(f"--keep {given.keep}: it is there already; name a new folder")
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.keep or Path(scratch)).resolve()
        trees, outputs = ([folder / name / side for side in ("before", "after")] for name in ("trees", "outputs"))
        for revision, tree in zip((given.before, given.after), trees, strict=True):
            check_out(revision, tree)
        write_inputs(folder / "outputs/inputs", next(trees[0].glob("benchmarks/**/cpu.jsonl")))
        with ThreadPoolExecutor() as pool:
            failed = list(pool.map(run_all, trees, outputs))
        verdicts = compare(*outputs)
    for name, verdict in verdicts.items():
        print(f"{verdict:11} {name}")
    for side, lines in zip((given.before, given.after), failed, strict=True):
        for line in lines:
            print(f"{side}: {line}", file=sys.stderr)
    same = sum(verdict == "same" for verdict in verdicts.values())
    print(f"{same} of {len(verdicts)} files are the same")
    sys.exit(int(any(failed) or same < len(verdicts)))


if __name__ == "__main__":
    main()
