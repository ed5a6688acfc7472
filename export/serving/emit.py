"""Writes what a server takes beside an exported model. It needs onnx."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from salema.export.engine.builder import build_plan, inspect_plan
from salema.export.engine.to_engine import check_options, check_ready
from salema.export.options import EngineOptions
from salema.export.serving.deepstream import CONFIG_FILE, model_config, nvinferserver_config, pipeline
from salema.export.serving.graphs import looped, sequenced
from salema.export.serving.triton import triton_config
from salema.runtime.errors import UsageError
from salema.runtime.files.whole_files import made_folder, written_aside
from salema.runtime.gpu.engine_inspector import check_precision
from salema.runtime.gpu.trt_library import TENSORRT, load_library
from salema.runtime.model_folder import look_up
from salema.runtime.onnx_metadata import parse_spec
from salema.runtime.spec import ModelSpec

TARGETS = ("triton", "deepstream")
_NAME = "salema"
_PROFILES = {"triton": (1, 1, 8), "deepstream": (1, 1, 1)}
_FILES = {"onnxruntime_onnx": "model.onnx", "tensorrt_plan": "model.plan"}


@dataclass(frozen=True)
class Emitted:
    """What was written for a server: its name, and the files."""

    target: str
    paths: tuple[Path, ...]


def check_emit(target: str, engine: str, options: EngineOptions, batch: int | None, *, split: bool) -> None:
    """Refuses, before a long export, what could not be written after it.

    `engine` is what `--engine` says; with `auto` none is built. `batch` is that of the export, None for a free one.

    Raises:
        UsageError: the options do not go together.
        MissingDependencyError, BackendError: the engine can't be built here.
    """
    if target not in TARGETS:
        raise UsageError(f"--emit {target}: not one of {', '.join(TARGETS)}")
    if split:
        raise UsageError(f"--emit {target}: a server runs whole models; export it without --split")
    if batch is not None:
        raise UsageError(f"--emit {target}: the model has a batch of {batch}; export it with --batch dynamic")
    if engine == "tensorrt-rtx":
        raise UsageError(f"--emit {target} --engine tensorrt-rtx: Triton does not run that; use --engine tensorrt")
    check_options(options, None)
    if target == "deepstream" and options.batch_profile is not None:
        raise UsageError("--batch-profile: nvinferserver keeps the state of one stream only; leave it out")
    if engine == "tensorrt":
        check_ready(Path(), engine, options, batch)
    elif replace(options, batch_profile=None) != EngineOptions():
        raise UsageError(f"--emit {target}: engine options were given; add --engine tensorrt, or leave them out")


def emit(folder: Path, target: str, engine: str, options: EngineOptions, say: Callable[[str], None]) -> Emitted:
    """Writes a Triton model repository, or DeepStream's configuration with one, into a folder beside the model.

    With `engine` `tensorrt` an engine is built here and served; else ONNX Runtime runs the graph. The batch profile
    also says how many streams Triton may put into a batch. `say` takes a line on each step.
    """
    models = look_up(folder).onnx_files()
    data = models[0].read_bytes()
    spec = parse_spec(data, str(models[0]))
    check_emit(target, engine, options, spec.batch, split=len(models) > 1)
    place = models[0].parent / target
    profile = options.batch_profile or _PROFILES[target]
    platform = "tensorrt_plan" if engine == "tensorrt" else "onnxruntime_onnx"
    say(f"emitting      {target}, for {platform}, into {place}")
    graph, served = sequenced(data, spec) if target == "triton" else looped(data, spec)
    if engine == "tensorrt":
        graph = _plan(graph, served, replace(options, batch_profile=profile), str(models[0]))
    return Emitted(target, _write(place, _files(target, graph, served, platform, profile)))


def _files(
    target: str, model: bytes, spec: ModelSpec, platform: str, profile: tuple[int, int, int]
) -> dict[str, bytes]:
    """Returns every file by its path, the model first: what names it comes after it."""
    if target == "triton":
        texts = {f"{_NAME}/config.pbtxt": triton_config(spec, _NAME, platform, profile)}
        root = _NAME
    else:
        root = f"models/{_NAME}"
        texts = {
            f"{root}/config.pbtxt": model_config(spec, _NAME, platform),
            CONFIG_FILE: nvinferserver_config(spec, _NAME, "models"),
            "pipeline.txt": pipeline(),
        }
    return {f"{root}/1/{_FILES[platform]}": model} | {path: text.encode() for path, text in texts.items()}


def _plan(graph: bytes, spec: ModelSpec, options: EngineOptions, where: str) -> bytes:
    """Builds TensorRT's plan of a graph, on the GPU it is for, and checks its precision."""
    library = load_library(TENSORRT)
    profile = options.batch_profile or _PROFILES["triton"]
    plan = build_plan(library, graph, where, spec, options, profile)
    layers = inspect_plan(library, plan.data, options, spec, profile[1], where)
    check_precision(layers, spec.precision, where, in_float=len(spec.float_layers))
    return plan.data


def _write(place: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Writes all files, or none."""
    with ExitStack() as stack:
        for name, content in reversed(list(files.items())):  # the stack names the first file last
            path = place / name
            stack.enter_context(made_folder(path.parent))
            stack.enter_context(written_aside(path)).write_bytes(content)
    return tuple(place / name for name in files)
