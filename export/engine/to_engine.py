"""Builds a TensorRT or TensorRT-RTX engine beside `model.onnx`. It needs neither torch nor onnx: a Jetson has none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from salema.export.engine.builder import Plan, build_plan, inspect_plan
from salema.export.options import EngineOptions
from salema.kernels.gpus import Gpu, list_gpus
from salema.runtime.errors import BackendError, UsageError
from salema.runtime.files.whole_files import check_writable, write_bytes
from salema.runtime.gpu.engine_files import EngineInfo, write_engine
from salema.runtime.gpu.engine_inspector import check_precision
from salema.runtime.gpu.trt_library import KINDS, RTX_TARGETS, TENSORRT, TENSORRT_RTX, Kind, Library, load_library
from salema.runtime.model_folder import look_up
from salema.runtime.onnx_metadata import parse_spec, read_spec
from salema.runtime.spec import ModelSpec, salema_version

ENGINES = ("auto", "tensorrt", "tensorrt-rtx", "none")
LEVELS = range(6)
_DEFAULT_PROFILE = (1, 1, 8)
_MOST_GIB = 1 << 20
_MOST_STREAMS = 1 << 16


@dataclass(frozen=True)
class Built:
    """An engine that was written: its file, the size in bytes, the facts about it."""

    path: Path
    size_bytes: int
    info: EngineInfo


def check_ready(folder: Path, engine: str, options: EngineOptions, batch: int | None) -> None:
    """Refuses, before a long export, an engine that could not be built after it.

    `batch` is that of the export, None for a free one.

    Raises:
        UsageError, MissingDependencyError, BackendError: as `build_engine`.
    """
    if engine == "none":
        if options != EngineOptions():
            raise UsageError("--engine none builds nothing, but engine options were given; leave one of them out")
        return
    kind = KINDS.get(engine)
    if kind is None and options != EngineOptions():
        check_options(options, None)
        kind, why = choose_kind(folder, options)
        if kind is None:
            raise BackendError(f"engine options were given, but no engine can be built: {why}")
    if kind is not None:
        check_options(options, kind)
        _profile(batch, options)
        load_library(kind)
        _gpu_for(kind, options)


def build_chosen(
    folder: Path, engine: str, options: EngineOptions, say: Callable[[str], None], *, required: bool = False
) -> tuple[Built, ...]:
    """Builds the engine that `--engine` names, or those of both parts; `auto` may build none, and says why.

    If one is `required`, it is an error that `auto` builds none. `say` takes a line on each step.
    """
    models = look_up(folder).onnx_files()
    parts = [read_spec(path).part for path in models]
    kind = KINDS.get(engine)
    if engine == "auto":
        kind, why = choose_kind(folder, options)
        if required and kind is None:
            raise BackendError(f"no engine was built: {why}")
        say(f"engine        {kind.title if kind else 'none'} (auto: {why})")
    built = () if kind is None else tuple(build_engine(path, kind, options, say) for path in models)
    for other in KINDS.values():
        if other is not kind and any(models[0].with_name(other.engine_name(part)).is_file() for part in parts):
            again = f"if it is older than the model, build it again with: {other.command(folder)}"
            say(f"note: {models[0].parent} also holds an engine of {other.title}; {again}")
    return built


def build_engine(model: Path, kind: Kind, options: EngineOptions, say: Callable[[str], None]) -> Built:
    """Builds the engine of an ONNX file beside it. The engine appears only after it has passed its check.

    `model` is a whole step or a part. `say` takes a line on each step.

    Raises:
        UsageError: an option does not fit the library or the model.
        ModelError: the model is not one of ours.
        OutputError: its folder can't be written.
        MissingDependencyError: the library is not installed.
        BackendError: a GPU is needed and missing, the build failed, or the precision is another.
    """
    check_options(options, kind)
    data = model.read_bytes()  # read once: a new export meanwhile must not mix two files
    spec = parse_spec(data, str(model))
    path = model.parent / kind.engine_name(spec.part)
    profile = _profile(spec.batch, options)
    for place in (path, *([options.timing_cache] if options.timing_cache else [])):
        check_writable(place)
    library = load_library(kind)
    gpu = _gpu_for(kind, options)
    options = replace(options, targets=options.targets or ((gpu.target,) if gpu else ()))
    wait = ", which can take minutes" if kind is TENSORRT else ""
    say(f"building      {path.name} with {kind.title} {library.version} for {', '.join(options.targets)}{wait}")
    plan = build_plan(library, data, str(model), spec, options, profile)
    info = _describe(library, gpu, options, profile, spec, data, plan)
    layers = None
    if gpu is not None and gpu.target in options.targets:
        layers = inspect_plan(library, plan.data, options, spec, profile[1], str(path))
        if check_precision(layers, spec.precision, str(path), in_float=len(spec.float_layers)):
            info, layers = replace(info, precision_shown_by="inspector"), None
    write_engine(path, plan.data, info)
    _keep_layers(path, layers, spec.precision, say)
    if options.timing_cache is not None and plan.timings is not None:
        write_bytes(options.timing_cache, plan.timings)
    return Built(path, len(plan.data), info)


def _keep_layers(path: Path, layers: str | None, precision: str, say: Callable[[str], None]) -> None:
    """Writes an inspector's JSON beside the engine, for people to read; without one, removes an older engine's."""
    kept = path.with_name(f"{path.name}.layers.json")
    kept.unlink(missing_ok=True)
    if layers is not None:
        write_bytes(kept, layers.encode())
        say(
            f"note: the inspector shows no convolution in {precision}, and none in another precision; the network has"
            f" them so; what it shows is in {kept}"
        )


def _describe(
    library: Library,
    gpu: Gpu | None,
    options: EngineOptions,
    profile: tuple[int, int, int],
    spec: ModelSpec,
    model: bytes,
    plan: Plan,
) -> EngineInfo:
    """Returns the facts of a plan that has not been inspected yet."""
    return EngineInfo(
        spec=spec,
        backend=library.kind.backend,
        library_version=library.version,
        targets=options.targets,
        gpu=gpu.name if gpu else None,
        batch_profile=profile,
        onnx_sha256=hashlib.sha256(model).hexdigest(),
        plan_sha256=hashlib.sha256(plan.data).hexdigest(),
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        workspace_gib=options.workspace_gib,
        optimization_level=options.optimization_level,
        convolutions=plan.convolutions,
        precision_shown_by="network",
        build_seconds=round(plan.seconds, 2),
        salema_version=salema_version(),
    )


def check_options(options: EngineOptions, kind: Kind | None) -> None:
    """Refuses options that are wrong for every model and machine; `kind` None means either library."""
    level, gib = options.optimization_level, options.workspace_gib
    if level is not None and level not in LEVELS:
        raise UsageError(f"--optimization-level {level}: give 0 to {LEVELS[-1]}")
    if gib is not None and not 0 < gib <= _MOST_GIB:
        raise UsageError(f"--workspace {gib}: give the GiB of scratch memory, above 0 and at most {_MOST_GIB}")
    least, best, most = options.batch_profile or _DEFAULT_PROFILE
    if not 1 <= least <= best <= most <= _MOST_STREAMS:
        given = f"{least} {best} {most}"
        raise UsageError(f"--batch-profile {given}: give least, best and greatest, from 1 to {_MOST_STREAMS}")
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
        "--optimization-level": (options.optimization_level is not None, "TensorRT-RTX builds the same at every level"),
        "--timing-cache": (options.timing_cache, "TensorRT-RTX times nothing while it builds; leave it out"),
        "--version-compatible": (options.version_compatible, "TensorRT-RTX has no lean runtime; leave it out"),
        "--hardware-compatible": (options.hardware_compatible, "give --target once for each kind of GPU instead"),
    }
    for option, (value, advice) in refused.items():
        if value:
            raise UsageError(f"{option} goes with --engine tensorrt only: {advice}")


def choose_kind(folder: Path, options: EngineOptions) -> tuple[Kind | None, str]:
    """Chooses for `--engine auto` the first library that is installed and can build for the GPU here.

    Returns the library and why; or None, with why and the command that builds an engine on the machine with the GPU.
    """
    on_target = f"on the machine with the GPU run: {TENSORRT.command(folder)}"
    if options.targets:
        return TENSORRT_RTX, "only TensorRT-RTX builds for a --target"
    try:
        gpu = list_gpus()[0]
    except BackendError as error:
        cause = str(error).partition("; ")[0]
        return None, f"{cause}; {on_target} (or tensorrt-rtx, which builds here with --target)"
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


def _profile(batch: int | None, options: EngineOptions) -> tuple[int, int, int]:
    if batch is None:
        return options.batch_profile or _DEFAULT_PROFILE
    if options.batch_profile not in {None, (batch,) * 3}:
        raise UsageError(f"--batch-profile: the model is exported with --batch {batch}; export it with --batch dynamic")
    return (batch,) * 3


def _gpu_for(kind: Kind, options: EngineOptions) -> Gpu | None:
    """Returns the GPU to build on; None if there is none and the options name targets."""
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
