"""How fast whole runs are, and how fast what people would do instead: frames per second of a clip, in turns.

A video to a video: our command with each backend, and loops over the peers of `salema-bench`, frame after frame, as
RobustVideoMatting's and OpenVINO's own examples are written. A folder of frames to a folder of maps: our command, and
the published way, PyTorch frame after frame. Our frames per second are what `salema-run` reports, with reading and
writing; a loop is timed from its first frame on. Neither counts the start.

Usage: python -m salema.training.shipping.run_speed --video FILE [--weights NAME]... [--frames N] FILE.json
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.peers.network import Network, load_network
from salema.benchmarks.peers.peers import Runner, open_peer
from salema.benchmarks.studies.common import write_by_cpu
from salema.export.weights.checkpoints import shipped_names
from salema.runtime.errors import exit_on_error
from salema.runtime.model_folder import MODEL_FILE
from salema.runtime.onnx_metadata import read_spec
from salema.runtime.preprocess import to_network_size
from salema.training.shipping.commands import parser_of, run

ROUNDS = 3
BACKENDS = ("auto", "onnxruntime", "openvino", "ncnn")
LOOPS = ("onnxruntime", "openvino")
Way = Callable[[], float]
"""Runs all frames once; returns frames per second."""


def measure(weights: str, video: Path, frames: int, folder: Path) -> dict[str, Any]:
    """Measures one network; returns frames per second by job (`video`, `folder`) and way: of each run, and the median.

    It takes so many `frames` of the video, and an empty `folder` for files.
    """
    model = folder / "model"
    run("salema-export", "--weights", weights, "-o", model)
    network = load_network(read_spec(model / MODEL_FILE), weights)
    stills = _stills(video, frames, folder / "stills")
    clip = ("--max-frames", frames, "-o", folder / "out.mp4")
    maps = ("--no-video", "--maps", folder / "maps")
    jobs: dict[str, dict[str, Way]] = {
        "video": {
            **{f"salema-run, {name}": _ours(model, video, "--backend", name, *clip) for name in BACKENDS},
            **{f"{name}, a loop": _loop(name, network, video, frames, folder) for name in LOOPS},
        },
        "folder": {
            "salema-run, auto": _ours(model, stills, *maps),
            "pytorch, the published way": _published(network, stills, folder),
        },
    }
    return {job: in_turns(ways) for job, ways in jobs.items()}


def in_turns(ways: dict[str, Way]) -> dict[str, Any]:
    """Runs every way `ROUNDS` times, in turns."""
    fps: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            fps[name].append(way())
    return {name: {"fps": values, "median": median(values)} for name, values in fps.items()}


def _ours(model: Path, source: Path, *options: object) -> Way:
    arguments = (source, "--model", model, "--device", "cpu", *options, "--json")
    return lambda: float(json.loads(run("salema-run", *arguments))["fps"])


def _loop(peer: str, network: Network, video: Path, frames: int, folder: Path) -> Way:
    """A loop over OpenCV's reader and writer that lays each map over its frame."""

    def way() -> float:
        runner, _ = open_peer(peer, network, 1, "cpu", folder)
        images = _read(video, frames)
        first = next(images)
        height, width = first.shape[:2]
        writer = cv2.VideoWriter(str(folder / "loop.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (width, height))
        _map_of(runner, first)
        start, count = time.perf_counter(), 0
        for count, image in enumerate(images, 1):  # noqa: B007 - the last count is used
            heat = cv2.applyColorMap(cv2.resize(_map_of(runner, image), (width, height)), cv2.COLORMAP_JET)
            writer.write(cv2.addWeighted(image, 0.5, heat, 0.5, 0))
        writer.release()
        seconds = time.perf_counter() - start
        runner.close()
        return count / seconds

    return way


def _published(network: Network, stills: Path, folder: Path) -> Way:
    """Reads a folder's frames, runs them in PyTorch, and writes maps, one after the other."""

    def way() -> float:
        runner, _ = open_peer("pytorch", network, 1, "cpu", folder)
        first, *files = sorted(stills.iterdir())
        _map_of(runner, _image(first))
        start = time.perf_counter()
        for file in files:
            cv2.imwrite(str(folder / "map.png"), _map_of(runner, _image(file)))
        seconds = time.perf_counter() - start
        runner.close()
        return len(files) / seconds

    return way


def _map_of(runner: Runner, image_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns the map of a frame, stretched to 0 to 255, at network size."""
    saliency = runner.infer(to_network_size(image_bgr, 192, 256)[np.newaxis])[0]
    return cv2.normalize(saliency, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)  # type: ignore[call-overload,no-any-return]


def _image(file: Path) -> NDArray[np.uint8]:
    image: Any = cv2.imread(str(file))
    return image  # type: ignore[no-any-return]


def _read(video: Path, frames: int) -> Iterator[NDArray[np.uint8]]:
    capture = cv2.VideoCapture(str(video))
    for _ in range(frames):
        is_there, image = capture.read()
        if not is_there:
            break
        yield image  # type: ignore[misc]
    capture.release()


def _stills(video: Path, frames: int, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(_read(video, frames), 1):
        cv2.imwrite(str(folder / f"{number:04d}.png"), image)
    return folder


@exit_on_error("run_speed")
def main() -> None:
    """Measures weights, those that ship if none are named, and writes JSON; it replaces the record of the same CPU."""
    parser = parser_of(__doc__, of_photographs=False)
    parser.add_argument("--video", type=Path, required=True, help="video to run on")
    parser.add_argument("--weights", action="append", metavar="NAME", help="as salema-export takes them")
    parser.add_argument("--frames", type=int, default=250, help="how many frames of the video")
    parser.add_argument("file", metavar="FILE.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: measure(name, given.video, given.frames, Path(folder) / name.replace(":", "-"))
            for name in given.weights or shipped_names()
        }
    frames = dict.fromkeys(runs, given.frames)
    write_by_cpu({"video": given.video.name, "frames": frames, "rounds": ROUNDS, "runs": runs})


if __name__ == "__main__":
    main()
