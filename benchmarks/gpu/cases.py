"""What `make gpu-check` compares: every backend that runs here with PyTorch, and the ways to run with each other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from salema.benchmarks.gpu.available import unavailable
from salema.benchmarks.gpu.parity import TrueStep, compare_with_torch, true_steps
from salema.benchmarks.gpu.settings import Settings, Stage
from salema.benchmarks.peers.network import load_network
from salema.benchmarks.peers.torch_peers import TorchOptions, TorchStream
from salema.benchmarks.speed.harness import compare
from salema.export.engine.to_engine import build_chosen
from salema.export.exporter import export_model
from salema.export.options import EngineOptions, ExportOptions
from salema.export.weights.seeded import moving_disc
from salema.runtime.backends.opening import open_session
from salema.runtime.errors import BackendError, SalemaError
from salema.runtime.gpu.device_session import STATE_SCHEMES
from salema.runtime.gpu.trt_library import KINDS, Kind
from salema.runtime.gpu.trt_session import open_tensorrt
from salema.runtime.model_folder import look_up
from salema.runtime.onnx_metadata import read_spec
from salema.runtime.session import Session
from salema.runtime.spec import ModelSpec
from salema.runtime.stream import SaliencyStream
from salema.runtime.telling import tell


def kinds_here(device: str) -> list[Kind]:
    """Returns the libraries whose engines the device can run."""
    return [kind for kind in KINDS.values() if device != "cpu" and unavailable(kind.backend) is None]


def export_models(stage: Stage, precision: str) -> list[Path]:
    """Exports a model whole, and split where engines run, unless an earlier stage has.

    Returns:
        Their folders, the whole one first.
    """
    settings = stage.settings
    options = ExportOptions(precision=precision, imgsz_hw=settings.imgsz_hw)
    whole = settings.models / precision
    folders = [whole, *([whole.with_name(f"{precision}-split")] if kinds_here(settings.device) else [])]
    for folder in folders:
        if not folder.is_dir():
            export_model(settings.weights, folder, replace(options, split=folder is not whole), tell)
    return folders


def build_engine(folder: Path, kind: Kind) -> None:
    """Builds a library's engine of the model in a folder, unless it is there."""
    if not look_up(folder).has_engine(kind):
        build_chosen(folder, kind.backend, EngineOptions(), tell)


def check_precision(stage: Stage, precision: str) -> dict[str, Any]:
    """Compares the backends with PyTorch in FP32 over the same frames, and times them against each other.

    They run with graphs on and off and both state schemes, which `salema-bench` can't choose. Results are kept in the
    stage, as they come, by the precision, and returned; in `passed_over`, why some backends did not run, and in
    `failed`, what was wrong with those that did.
    """
    settings = stage.settings
    whole, *split = export_models(stage, precision)
    spec = read_spec(whole / "model.onnx")
    video = moving_disc(settings.frames, spec.height, spec.width)
    expected, on = _truth(spec, settings, video)
    found: dict[str, Any] = {"truth": f"PyTorch in FP32 on {on}", "parity": {}, "speed": {}, "passed_over": {}}
    found["failed"] = {}
    with ExitStack() as stack:
        sessions: dict[str, Session] = {}
        for backend, opener in openers(whole, *split, device=settings.device).items():
            if stage.left_s <= 0:
                found["passed_over"][backend] = "no time left"
                continue
            if crash := stage.begin(f"{precision}, {backend}"):
                found["failed"][backend] = crash
                continue
            session = _open(backend, opener, found["passed_over"])
            if session is not None:
                stack.callback(_close, session)
                if _compare(backend, session, (precision, expected, video), found):
                    sessions[backend] = session
            stage.keep(**{precision: found})
        if crash := stage.begin(f"{precision}, all in turns"):
            found["failed"]["all in turns"] = crash
        elif sessions:
            found["speed"] = _time_sessions(sessions, video[len(video) // 2], settings.rounds)
    stage.keep(**{precision: found}, at=None)
    return found


def _truth(spec: ModelSpec, settings: Settings, video: NDArray[np.uint8]) -> tuple[list[TrueStep], str]:
    """Returns what PyTorch gives for the video, and the device: the CPU where this PyTorch has no CUDA."""
    network = load_network(spec, settings.weights)
    device = settings.device if torch.cuda.is_available() else "cpu"
    truth = TorchStream(network.architecture, network.checkpoint.weights, spec, TorchOptions(), device)
    try:
        return true_steps(truth, video), device
    finally:
        truth.close()


def _open(backend: str, opener: Callable[[], Session], passed_over: dict[str, str]) -> Session | None:
    try:
        return opener()
    except SalemaError as error:
        passed_over[backend] = str(error)
        tell(f"  {backend} passed over: {error}")
        return None


def _close(session: Session) -> None:
    with suppress(SalemaError):  # a GPU that stopped with a fault refuses this too
        session.close()


def _compare(
    backend: str, session: Session, given: tuple[str, list[TrueStep], NDArray[np.uint8]], found: dict[str, Any]
) -> bool:
    """Compares a session, and notes what is wrong with it; returns whether it came to the end of the video."""
    precision, expected, video = given
    try:
        compared = compare_with_torch(session, expected, video)
    except Exception as error:  # noqa: BLE001 - whatever a library raises; the other backends may run
        why = str(error) if isinstance(error, SalemaError) else f"{type(error).__name__}: {error}"
    else:
        found["parity"][backend] = {"description": session.description, **asdict(compared)}
        tell(f"  {backend}: {found['parity'][backend]}")
        why = compared.beyond(precision) or ""
    if why:
        found["failed"][backend] = why
        tell(f"  {backend} failed: {why}")
    return backend in found["parity"]


def _time_sessions(sessions: dict[str, Session], frame: NDArray[np.uint8], rounds: int) -> dict[str, Any]:
    """Times a step of each session on one frame `[H, W, 3]`; ratios are against the first."""
    cases = {backend: partial(SaliencyStream(session).infer, frame[None]) for backend, session in sessions.items()}
    first = next(iter(cases))
    speed = {case: asdict(timing) for case, timing in compare(cases, first, rounds, inner=10).items()}
    for case, timing in speed.items():
        tell(f"  {case}: {timing['median_ms']:.3f} ms, {timing['ratio']:.2f} x {first}")
    return speed


def openers(whole: Path, *split: Path, device: str) -> dict[str, Callable[[], Session]]:
    """Returns what opens each session to try, by name; `split` is the folder of the split model, if there is one."""
    ways: dict[str, Callable[[], Session]] = {
        f"onnxruntime {device}": partial(open_session, whole, "onnxruntime", device)
    }
    if device == "cpu":
        return ways
    for kind in KINDS.values():
        if why := unavailable(kind.backend):
            ways[kind.backend] = partial(_refuse, why)
            continue
        for graphs in (True, False):
            for scheme in STATE_SCHEMES:
                name = f"{kind.backend}, {'graphs' if graphs else 'no graphs'}, {scheme}"
                ways[name] = partial(_open_built, whole, kind, graphs=graphs, state_scheme=scheme)
        ways |= {f"{kind.backend}, graphs, split": partial(_open_built, folder, kind) for folder in split}
    return ways | {"onnxruntime-tensorrt": partial(open_session, whole, "onnxruntime-tensorrt")}


def _open_built(folder: Path, kind: Kind, **options: Any) -> Session:
    build_engine(folder, kind)
    return open_tensorrt(look_up(folder), kind, **options)


def _refuse(why: str) -> Session:
    raise BackendError(why)
