"""What `make gpu-check` compares: every backend that runs here with PyTorch, and the ways to run with each other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.gpu.parity import compare_with_torch
from salema.benchmarks.peers.network import load_network
from salema.benchmarks.peers.torch_peers import TorchOptions, TorchStream
from salema.benchmarks.speed.harness import compare
from salema.export.engine.to_engine import build_chosen
from salema.export.exporter import export_model
from salema.export.options import EngineOptions, ExportOptions
from salema.export.weights.seeded import moving_disc
from salema.runtime.backends.opening import open_session
from salema.runtime.errors import SalemaError
from salema.runtime.gpu.device_session import STATE_SCHEMES
from salema.runtime.gpu.trt_library import KINDS, Kind
from salema.runtime.gpu.trt_session import open_tensorrt
from salema.runtime.model_folder import look_up
from salema.runtime.session import Session
from salema.runtime.stream import SaliencyStream


def split_of(folder: Path) -> Path:
    """Returns where `check_precision` puts the split model that belongs to a whole one."""
    return folder.with_name(f"{folder.name}-split")


def check_precision(
    weights: str,
    folder: Path,
    options: ExportOptions,
    device: str,
    frames: int,
    rounds: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Exports a model whole to `folder` and split beside it; compares the backends with PyTorch and times them.

    They are timed against each other only, with graphs on and off and both state schemes, which `salema-bench` can't
    choose. The models and their engines stay.

    Args:
        weights: as `salema-export` takes them.
        folder: of the whole model.
        options: the export's.
        device: `cuda` or `cpu`.
        frames: how many to compare with PyTorch in float32.
        rounds: of the timing.
        say: takes a line on each step.

    Returns:
        A record for JSON; in `passed_over`, why some backends did not run.
    """
    split = split_of(folder)
    result = export_model(weights, folder, options, say)
    export_model(weights, split, replace(options, split=True), say)
    network = load_network(result.spec, weights)
    truth = TorchStream(network.architecture, network.checkpoint.weights, result.spec, TorchOptions(), device)
    video = moving_disc(frames, result.spec.height, result.spec.width)
    with ExitStack() as stack:
        sessions, passed_over = _open_all(folder, split, device, stack, say)
        parity = {}
        for backend, session in sessions.items():
            parity[backend] = {"description": session.description, **asdict(compare_with_torch(session, truth, video))}
            say(f"  {backend}: {parity[backend]}")
        speed = _time_sessions(sessions, video[len(video) // 2], rounds, say)
    return {"export": asdict(result.report), "parity": parity, "speed": speed, "passed_over": passed_over}


def _time_sessions(
    sessions: dict[str, Session], frame: NDArray[np.uint8], rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Times a step of each session on one frame `[H, W, 3]`; ratios are against the first."""
    cases = {backend: partial(SaliencyStream(session).infer, frame[None]) for backend, session in sessions.items()}
    first = next(iter(cases), "")
    speed = {case: asdict(timing) for case, timing in compare(cases, first, rounds, inner=10).items()}
    for case, timing in speed.items():
        say(f"  {case}: {timing['median_ms']:.3f} ms, {timing['ratio']:.2f} x {first}")
    return speed


def _open_all(
    whole: Path, split: Path, device: str, stack: ExitStack, say: Callable[[str], None]
) -> tuple[dict[str, Session], dict[str, str]]:
    sessions: dict[str, Session] = {}
    passed_over: dict[str, str] = {}
    for backend, opener in openers(whole, split, device, say).items():
        try:
            sessions[backend] = stack.enter_context(opener())
        except SalemaError as error:  # noqa: PERF203 - opening takes seconds
            passed_over[backend] = str(error)
            say(f"  {backend} passed over: {error}")
    return sessions, passed_over


def openers(whole: Path, split: Path, device: str, say: Callable[[str], None]) -> dict[str, Callable[[], Session]]:
    """Returns what opens each session to try, by name; an engine is built when the first of them needs it."""
    ways: dict[str, Callable[[], Session]] = {
        f"onnxruntime {device}": partial(open_session, whole, "onnxruntime", device)
    }
    if device == "cpu":
        return ways | {"onnxruntime cpu, split": partial(open_session, split, "onnxruntime", device)}
    for kind in KINDS.values():
        for graphs in (True, False):
            for scheme in STATE_SCHEMES:
                name = f"{kind.backend}, {'graphs' if graphs else 'no graphs'}, {scheme}"
                ways[name] = partial(_open_built, whole, kind, say, graphs=graphs, scheme=scheme)
        ways[f"{kind.backend}, graphs, split"] = partial(_open_built, split, kind, say)
    return ways | {"onnxruntime-tensorrt": partial(open_session, whole, "onnxruntime-tensorrt")}


def _open_built(
    folder: Path, kind: Kind, say: Callable[[str], None], *, graphs: bool = True, scheme: str = STATE_SCHEMES[0]
) -> Session:
    if not any((folder / kind.engine_name(part)).is_file() for part in ("model", "encoder")):
        build_chosen(folder, kind.backend, EngineOptions(), say)
    return open_tensorrt(look_up(folder), kind, graphs=graphs, state_scheme=scheme)
