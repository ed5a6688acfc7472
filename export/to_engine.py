"""From `model.onnx` to a TensorRT or TensorRT-RTX engine beside it. Needs neither torch nor onnx, as on a Jetson."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from salema.export.engine_builder import EngineOptions, build_plan, inspect_plan
from salema.kernels.gpus import Gpu, list_gpus
from salema.runtime.engine_files import EngineInfo, sha256_of, write_engine
from salema.runtime.errors import BackendError, UsageError
from salema.runtime.onnx_metadata import read_spec
from salema.runtime.session import find_model
from salema.runtime.trt_library import KINDS, RTX_TARGETS, TENSORRT, TENSORRT_RTX, Kind, load_library

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from salema.runtime.spec import ModelSpec

ENGINES = ("auto", "tensorrt", "tensorrt-rtx", "none")
LEVELS = range(6)
_DEFAULT_PROFILE = (1, 1, 8)


@dataclass(frozen=True)
class Built:
    """An engine that was written: the file, its size in bytes, its facts."""

    path: Path
    size_bytes: int
    info: EngineInfo


def check_ready(engine: str, options: EngineOptions) -> None:
    """Refuses before a long export what can't be built after it.

    Args:
        engine: one of `ENGINES`.
        options: the builder's options.

    Raises:
        UsageError, MissingDependencyError, BackendError: as `build_engine`.
    """
    if engine == "none" and options != EngineOptions():
        raise UsageError("--engine none builds nothing, and options of an engine were given; leave one of them out")
    if engine in KINDS:
        kind = KINDS[engine]
        check_options(options, kind)
        load_library(kind)
        _gpu_for(kind, options)


def build_chosen(folder: Path, engine: str, options: EngineOptions, say: Callable[[str], None]) -> Built | None:
    """Builds what `--engine` asks for; `auto` may come to build nothing, and says why.

    Raises:
        SalemaError: see `build_engine`.
    """
    if engine == "none":
        return None
    kind = KINDS.get(engine)
    if kind is None:
        kind, why = choose_kind(folder, options)
        say(f"engine        {kind.title if kind else 'none'} (auto: {why})")
    return build_engine(folder, kind, options, say) if kind else None


def build_engine(folder: Path, kind: Kind, options: EngineOptions, say: Callable[[str], None]) -> Built:
    """Builds an engine from an exported folder, beside its ONNX file; it appears only once it has passed its check.

    Args:
        folder: what `salema-export` wrote.
        kind: the library.
        options: the builder's options.
        say: takes a line on each step.

    Raises:
        UsageError: an option that this library or model does not have.
        ModelError: the model is missing or not ours.
        MissingDependencyError: the library is not installed.
        BackendError: there is no GPU where one is needed, or the build failed, or the precision is not as asked.
    """
    check_options(options, kind)
    model = find_model(folder)
    spec = read_spec(model)
    profile = _profile(spec, options)
    library = load_library(kind)
    gpu = _gpu_for(kind, options)
    targets = options.targets or ((gpu.target,) if gpu else ())
    say(f"building      {kind.title} {library.version} engine for {', '.join(targets)}, this takes a while")
    started = time.perf_counter()
    plan, convolutions = build_plan(library, model, spec, replace(options, targets=targets), profile)
    seconds = time.perf_counter() - started
    shown_by = "network"
    if gpu is not None and gpu.target in targets:
        shown_by = "inspector" if inspect_plan(library, plan, options, spec, profile[1], str(model)) else "network"
    info = EngineInfo(
        spec=spec,
        backend=kind.backend,
        library_version=library.version,
        targets=targets,
        gpu=gpu.name if gpu else None,
        batch_profile=profile,
        onnx_sha256=sha256_of(model),
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        workspace_gib=options.workspace_gib,
        optimization_level=options.optimization_level,
        convolutions=convolutions,
        precision_shown_by=shown_by,
        build_seconds=round(seconds, 2),
        salema_version=version("salema"),
    )
    path = model.parent / kind.engine_file
    write_engine(path, plan, info)
    return Built(path, len(plan), info)


def check_options(options: EngineOptions, kind: Kind) -> None:
    """Refuses options that can't be right, whatever the model and the machine.

    Raises:
        UsageError: there is one.
    """
    level, gib = options.optimization_level, options.workspace_gib
    if level is not None and level not in LEVELS:
        raise UsageError(f"--optimization-level {level}: give 0 to {LEVELS[-1]}")
    if gib is not None and not gib > 0:
        raise UsageError(f"--workspace {gib}: give the GiB of scratch memory, above 0")
    for target in options.targets:
        if target not in RTX_TARGETS:
            raise UsageError(
                f"--target {target}: TensorRT-RTX builds for {', '.join(RTX_TARGETS)}; other GPUs (Orin sm87, Hopper"
                " sm90, Thor sm110) need --engine tensorrt, run on the target itself"
            )
    if kind is TENSORRT and options.targets:
        raise UsageError("--target: TensorRT builds for the GPU it runs on; it goes with --engine tensorrt-rtx only")
    if kind is TENSORRT_RTX:
        _refuse_for_rtx(options)


def _refuse_for_rtx(options: EngineOptions) -> None:
    refused = {
        "--timing-cache": (options.timing_cache, "TensorRT-RTX times nothing while it builds; leave it out"),
        "--version-compatible": (options.version_compatible, "TensorRT-RTX has no lean runtime; leave it out"),
        "--hardware-compatible": (options.hardware_compatible, "give --target once for each kind of GPU instead"),
    }
    for option, (value, advice) in refused.items():
        if value:
            raise UsageError(f"{option} goes with --engine tensorrt only: {advice}")


def choose_kind(folder: Path, options: EngineOptions) -> tuple[Kind | None, str]:
    """Chooses what `--engine auto` builds: the first library that is installed and can build for what is here.

    Returns:
        The library, or None; and why, with the command to run on the target where nothing can be built here.
    """
    on_target = f"on the machine with the GPU run: {TENSORRT.command(folder)}"
    if options.targets:
        return TENSORRT_RTX, "only TensorRT-RTX builds for a --target"
    try:
        gpu = list_gpus()[0]
    except BackendError:
        return None, f"no NVIDIA GPU here; {on_target} (or tensorrt-rtx, which builds here with --target)"
    reasons = []
    for kind in (TENSORRT, TENSORRT_RTX):
        if kind is TENSORRT_RTX and gpu.target not in RTX_TARGETS:
            reasons.append(f"TensorRT-RTX has no {gpu.target}")
            continue
        try:
            load_library(kind)
            check_options(options, kind)
        except (ImportError, UsageError) as error:
            reasons.append(str(error))
            continue
        return kind, f"installed, and {gpu.name} is here"
    return None, f"{'; '.join(reasons)}; then run: {TENSORRT.command(folder)}"


def _profile(spec: ModelSpec, options: EngineOptions) -> tuple[int, int, int]:
    profile = options.batch_profile
    if spec.batch is not None:
        if profile is not None and profile != (spec.batch,) * 3:
            raise UsageError(
                f"--batch-profile: the model was exported with --batch {spec.batch}; export it with --batch dynamic"
            )
        return (spec.batch,) * 3
    profile = profile or _DEFAULT_PROFILE
    if not 1 <= profile[0] <= profile[1] <= profile[2]:
        raise UsageError(f"--batch-profile {' '.join(map(str, profile))}: give least, best and greatest, 1 or more")
    return profile


def _gpu_for(kind: Kind, options: EngineOptions) -> Gpu | None:
    """Returns the GPU to build on and for; None where targets are named and there is none."""
    try:
        gpu = list_gpus()[0]
    except BackendError as error:
        if options.targets:
            return None
        advice = "; or name what to build for, such as --target sm89" if kind is TENSORRT_RTX else ""
        raise BackendError(f"{kind.title} builds on the GPU that the engine is for: {error}{advice}") from error
    if kind is TENSORRT_RTX and not options.targets and gpu.target not in RTX_TARGETS:
        raise BackendError(
            f"TensorRT-RTX does not know {gpu.name} ({gpu.target}), only {', '.join(RTX_TARGETS)};"
            " use --engine tensorrt"
        )
    return gpu
