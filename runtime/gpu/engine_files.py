"""Engine files: TensorRT's plan alone, with the facts about it beside it as `<engine>.json`."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from salema.kernels.gpus import Gpu
from salema.runtime.errors import ModelError
from salema.runtime.files.whole_files import sha256_of, write_bytes, written_aside
from salema.runtime.gpu.trt_library import RTX_TARGETS, TENSORRT, TENSORRT_RTX, Kind
from salema.runtime.spec import ModelSpec, read_facts

ENGINE_VERSION = 1


@dataclass(frozen=True)
class EngineInfo:
    """The facts of one engine.

    Attributes:
        spec: the model's own record, as in the ONNX file.
        backend: `tensorrt` or `tensorrt-rtx`.
        library_version: version of the library that built it.
        targets: compute capabilities it was built for, such as `sm89`; empty for all that the library knows.
        gpu: name of the GPU it was built on, or None if it was built without one.
        batch_profile: least, best and greatest number of streams.
        onnx_sha256: hash of the ONNX file it was built from.
        plan_sha256: hash of the plan.
        version_compatible: whether it also runs in other versions of TensorRT, through its lean runtime.
        hardware_compatible: whether it also runs on other GPUs from Ampere on.
        workspace_gib: limit of the builder's scratch memory, or None for no limit.
        optimization_level: the builder's optimization level, or None for its default.
        convolutions: how many convolutions the network has.
        precision_shown_by: `inspector` if TensorRT's inspector showed the precision of the engine's layers; `network`
            if only the parsed, strongly typed network showed it: the inspector shows nothing of them, or the engine was
            built without its GPU. Then the engine is inspected when it is loaded.
        build_seconds: time the build took.
        salema_version: version that wrote the record.
        engine_version: version of this record.
    """

    spec: ModelSpec
    backend: str
    library_version: str
    targets: tuple[str, ...]
    gpu: str | None
    batch_profile: tuple[int, int, int]
    onnx_sha256: str
    plan_sha256: str
    version_compatible: bool
    hardware_compatible: bool
    workspace_gib: float | None
    optimization_level: int | None
    convolutions: int
    precision_shown_by: str
    build_seconds: float
    salema_version: str
    engine_version: int = ENGINE_VERSION

    def to_json(self) -> str:
        """Returns the record as JSON."""
        return json.dumps(asdict(self), indent=1)

    def __post_init__(self) -> None:
        targets, profile = self.targets, self.batch_profile
        texts = (self.backend, self.library_version, self.onnx_sha256, self.plan_sha256)
        flags = (self.version_compatible, self.hardware_compatible)
        if not (
            (isinstance(targets, tuple) and all(isinstance(text, str) for text in (*texts, *targets)))
            and (len(profile) == 3 and all(isinstance(streams, int) for streams in profile))  # noqa: PLR2004
            and all(isinstance(flag, bool) for flag in flags)
        ):
            raise ValueError("it holds values of other types than it must")


def sidecar_of(engine: Path) -> Path:
    """Returns the path of an engine's facts."""
    return engine.with_name(engine.name + ".json")


def write_engine(path: Path, plan: bytes, info: EngineInfo) -> None:
    """Writes the plan and its facts, each whole or not at all.

    Raises:
        OutputError: they can't be written.
    """
    if path.is_symlink():
        path.unlink()  # the link's target is another model's
    # The facts hold the plan's hash, so that `read_engine` notices if a run was cut off between the two files.
    with written_aside(path) as aside:
        aside.write_bytes(plan)
        write_bytes(sidecar_of(path), info.to_json().encode())


def read_engine(path: Path, kind: Kind) -> tuple[bytes, EngineInfo]:
    """Reads an engine and its facts, and checks that they belong together and to the ONNX file beside them.

    Raises:
        ModelError: they don't belong together, or one is missing or damaged.
    """
    rebuild = kind.command(path.parent)
    sidecar = sidecar_of(path)
    if not sidecar.is_file():
        raise ModelError(f"{sidecar}: missing, and the engine can't be used without it; build both with: {rebuild}")
    info = read_facts(EngineInfo, sidecar, f"build it again with: {rebuild}")
    if info.backend != kind.backend:
        raise ModelError(f"{path}: built by {info.backend}; run it with --backend {info.backend}")
    plan = path.read_bytes()
    if hashlib.sha256(plan).hexdigest() != info.plan_sha256:
        raise ModelError(f"{path}: not the engine that {sidecar.name} describes; build both with: {rebuild}")
    model = path.with_name(f"{info.spec.part}.onnx")
    if model.is_file() and sha256_of(model) != info.onnx_sha256:
        raise ModelError(f"{path}: {model.name} beside it is another by now; build the engine anew with: {rebuild}")
    return plan, info


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _visible(index: int) -> str:
    """Returns how `CUDA_VISIBLE_DEVICES` names the GPU that is CUDA's number `index` here."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return named[index].strip() if index < len(named) else str(index)


def note_on(info: EngineInfo, gpu: Gpu) -> str:
    """Returns a note on an engine of another GPU of the same compute capability; empty for all others.

    It runs, but TensorRT chose its kernels by timing them on the other GPU, and advises to build it for each.
    """
    tuned = info.backend == TENSORRT.backend and not info.hardware_compatible
    other = tuned and info.gpu is not None and info.gpu != gpu.name
    return f"engine tuned for {info.gpu}" if other else ""


def check_versions(info: EngineInfo, path: Path, kind: Kind, version: str, gpu: Gpu) -> None:
    """Refuses an engine of another library version or GPU, before the library refuses it in less clear words.

    `version` and `gpu` are the library's version and the GPU on this machine.

    Raises:
        ModelError: it can't run here.
    """
    command = kind.command(path.parent)
    if kind is TENSORRT_RTX:
        command = f"{command} --target {gpu.target}" if gpu.target in RTX_TARGETS else TENSORRT.command(path.parent)
    elif gpu.index:  # salema-export builds for the first GPU that it sees
        command = f"CUDA_VISIBLE_DEVICES={_visible(gpu.index)} {command}"
    rebuild = f"build it here with: {command}"
    older = _numbers(version) < _numbers(info.library_version)  # an engine can be compatible with later versions only
    if info.library_version != version and (older or not info.version_compatible):
        raise ModelError(f"{path}: built by {kind.title} {info.library_version}, and this is {version}; {rebuild}")
    if info.targets and gpu.target not in info.targets and not info.hardware_compatible:
        built_for = ", ".join(info.targets)
        raise ModelError(f"{path}: built for {built_for}, and this GPU, {gpu.name}, is {gpu.target}; {rebuild}")
