"""What `make gpu-check` compares: every backend that runs here, and PyTorch."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salema.benchmarks.gpu.parity import compare_with_torch
from salema.benchmarks.peers.torch_peers import TorchGraphStream, TorchOptions, TorchStream
from salema.benchmarks.speed.harness import compare
from salema.export.engine.builder import EngineOptions
from salema.export.engine.to_engine import build_chosen
from salema.export.exporter import Options, export_model
from salema.export.weights.architecture import choose_architecture
from salema.export.weights.checkpoints import load_checkpoint
from salema.export.weights.seeded import moving_disc
from salema.runtime.backends.opening import open_session
from salema.runtime.errors import SalemaError
from salema.runtime.gpu.device_session import STATE_SCHEMES
from salema.runtime.gpu.trt_library import KINDS, Kind
from salema.runtime.gpu.trt_session import open_tensorrt
from salema.runtime.model_folder import look_up
from salema.runtime.stream import SaliencyStream

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from salema.export.weights.architecture import Architecture
    from salema.export.weights.checkpoints import Checkpoint
    from salema.runtime.session import Session
    from salema.runtime.spec import ModelSpec

BASELINE = "pytorch eager"


def check_precision(
    options: Options, device: str, frames: int, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Exports in a precision; compares and times every backend that runs here. Those that don't say why.

    Args:
        options: the export; its folder is replaced by one for the time being.
        device: `cuda` or `cpu`.
        frames: frames of the comparison with PyTorch in float32.
        rounds: rounds of the timing.
        say: takes a line on each step.
    """
    checkpoint = load_checkpoint(options.weights)
    architecture, _ = choose_architecture(checkpoint.kind, checkpoint.hint, "auto", (), None)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        whole, split = Path(name) / "whole", Path(name) / "split"
        result = export_model(Options(**{**vars(options), "folder": whole}), say)
        export_model(Options(**{**vars(options), "folder": split, "split": True}), say)
        sessions, passed_over = _open_all(whole, split, device, stack, say)
        video = moving_disc(frames, result.spec.height, result.spec.width)
        truth = TorchStream(architecture, checkpoint.weights, result.spec, TorchOptions(), device)
        parity = {}
        for backend, session in sessions.items():
            parity[backend] = {"description": session.description, **asdict(compare_with_torch(session, truth, video))}
            say(f"  {backend}: {parity[backend]}")
        frame = video[len(video) // 2][None]
        cases = _torch_cases(architecture, checkpoint, result.spec, device, frame)
        cases |= {backend: partial(SaliencyStream(session).infer, frame) for backend, session in sessions.items()}
        speed = {case: asdict(timing) for case, timing in compare(cases, BASELINE, rounds, inner=10).items()}
    for case, timing in speed.items():
        say(f"  {case}: {timing['median_ms']:.3f} ms, {timing['ratio']:.2f} x {BASELINE}")
    return {"export": asdict(result.report), "parity": parity, "speed": speed, "passed_over": passed_over}


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
    """Returns the sessions to try, by name; engines are built when the first session asks for them."""
    found: dict[str, Callable[[], Session]] = {
        f"onnxruntime {device}": partial(open_session, whole, "onnxruntime", device)
    }
    if device == "cpu":
        return found | {"onnxruntime cpu, split": partial(open_session, split, "onnxruntime", device)}
    for kind in KINDS.values():
        for graphs in (True, False):
            for scheme in STATE_SCHEMES:
                name = f"{kind.backend}, {'graphs' if graphs else 'no graphs'}, {scheme}"
                found[name] = partial(_open_built, whole, kind, say, graphs=graphs, scheme=scheme)
        found[f"{kind.backend}, graphs, split"] = partial(_open_built, split, kind, say)
    return found | {"onnxruntime-tensorrt": partial(open_session, whole, "onnxruntime-tensorrt")}


def _open_built(
    folder: Path, kind: Kind, say: Callable[[str], None], *, graphs: bool = True, scheme: str = STATE_SCHEMES[0]
) -> Session:
    if not any((folder / kind.engine_name(part)).is_file() for part in ("model", "encoder")):
        build_chosen(folder, kind.backend, EngineOptions(), say)
    return open_tensorrt(look_up(folder), kind, graphs=graphs, state_scheme=scheme)


def _torch_cases(
    architecture: Architecture, checkpoint: Checkpoint, spec: ModelSpec, device: str, frame: NDArray[np.uint8]
) -> dict[str, Callable[[], object]]:
    precision = "fp32" if device == "cpu" else spec.precision  # FP16 on a CPU is nobody's choice
    made = architecture, checkpoint.weights, spec, TorchOptions(precision), device
    cases: dict[str, Callable[[], object]] = {BASELINE: partial(TorchStream(*made).infer, frame)}
    if device != "cpu":
        recorded = TorchGraphStream(*made)
        recorded.record()
        cases["pytorch CUDA graph"] = partial(recorded.infer, frame)
    return cases
