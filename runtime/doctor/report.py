"""Runs every probe, judges each backend, and tells what `auto` would take."""

from __future__ import annotations

import base64
import ctypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from salema.kernels.gpus import Gpu, list_gpus
from salema.runtime.backends.opening import open_session
from salema.runtime.doctor.findings import BROKEN, MISSING, WORKS, Finding, Probe, run_apart, unusable
from salema.runtime.doctor.machine_probes import (
    CUDA_BINDINGS,
    DRIVER,
    GPU_MEMORY,
    KERNELS,
    NCNN,
    PYCUDA,
    find_no_gpu,
    probe_cuda,
    probe_gpus,
    probe_jetson,
    probe_ncnn,
    probe_system,
    probe_video,
)
from salema.runtime.doctor.openvino_probe import OPENVINO, OPENVINO_BF16, probe_openvino
from salema.runtime.errors import BackendError, MissingDependencyError, reason
from salema.runtime.gpu.trt_library import KINDS, RTX_TARGETS, TENSORRT, TENSORRT_RTX, Library, load_library

ORT, RTX_ON_GPU = "ONNX Runtime", "TensorRT-RTX on GPU 0"
# A 3x3 convolution of ones over x, float32 [1,1,3,3]. It is a convolution because CUDA's convolutions need cuDNN. Made
# with onnx: make_model(make_graph([make_node("Conv", ["x", "w"], ["y"])], ...), opset 13, ir_version=8).
TINY_MODEL = base64.b64decode(
    "CAg6hgEKDwoBeAoBdxIBeSIEQ29udhIEdGlueSozCAEIAQgDCAMQAUIBd0okAACAPwAAgD8AAIA/AACAPwAAgD8AAIA/AACAPwAAgD8AAIA/"
    "WhsKAXgSFgoUCAESEAoCCAEKAggBCgIIAwoCCANiGwoBeRIWChQIARIQCgIIAQoCCAEKAggBCgIIAUIECgAQDQ=="
)
_TINY_INPUT, _TINY_OUTPUT = range(9), 36
_MODEL_S = 600
_SILENT = 4  # ONNX Runtime's severity "fatal"; the findings report other errors
_INSTALL_ORT_GPU = "on a machine with an NVIDIA GPU: pip uninstall -y onnxruntime && pip install 'salema[gpu]'"
_ORT_NEEDS = {
    "CUDA": "install the CUDA and cuDNN that it is built for: pip install 'onnxruntime-gpu[cuda,cudnn]'",
    "TensorRT": "install TensorRT 10, whose libnvinfer.so.10 it is linked to: pip install 'tensorrt<11'",
}
_PYTHON = (PYCUDA, CUDA_BINDINGS, KERNELS, GPU_MEMORY)
_RUN_NEEDS = {
    TENSORRT.backend: (DRIVER, TENSORRT.title, *_PYTHON),
    TENSORRT_RTX.backend: (DRIVER, TENSORRT_RTX.title, RTX_ON_GPU, *_PYTHON),
    "onnxruntime (cpu)": (ORT, f"{ORT} CPU"),
    "onnxruntime (cuda)": (DRIVER, ORT, f"{ORT} CUDA"),
    "onnxruntime-tensorrt": (DRIVER, ORT, f"{ORT} TensorRT"),
    "ncnn": (NCNN,),
    "openvino": (OPENVINO,),
    "openvino-bf16": (OPENVINO, OPENVINO_BF16),
}
_ON_CPU = {"onnxruntime (cpu)": ORT, "openvino": OPENVINO, "ncnn": NCNN}
_BUILD_NEEDS = {TENSORRT.backend: (DRIVER, TENSORRT.title), TENSORRT_RTX.backend: (TENSORRT_RTX.title,)}


@dataclass(frozen=True)
class Backend:
    """What a backend can do here, by its name in `--backend`, with the device if it runs on two.

    `builds` is None if it needs no engines, or builds them itself. `why` it can't run is empty if it can. Advice is in
    order.
    """

    name: str
    runs: bool
    builds: bool | None
    why: str
    advice: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """All findings by section, what each backend can do, and what `auto` takes.

    `ok` says whether a backend can run, or, if a model was named, whether it was opened.
    """

    sections: dict[str, list[Finding]]
    backends: list[Backend]
    auto: str
    ok: bool


def examine(model: Path | None = None) -> Report:
    """Runs every probe; if `model`, a folder that `salema-export` wrote, is given, also opens it as `auto` does."""
    probes: dict[str, Probe] = {
        "system": probe_system,
        "GPU": probe_gpus,
        "CUDA from Python": probe_cuda,
        TENSORRT.title: partial(probe_tensorrt, TENSORRT.backend),
        TENSORRT_RTX.title: partial(probe_tensorrt, TENSORRT_RTX.backend),
        ORT: probe_onnxruntime,
        NCNN: probe_ncnn,
        OPENVINO: partial(probe_openvino, TINY_MODEL, _TINY_INPUT, _TINY_OUTPUT),
        "video": probe_video,
        "Jetson": probe_jetson,
    }
    answers = {section: run_apart(section, probe) for section, probe in probes.items()}
    sections = {section: findings for section, findings in answers.items() if findings is not None}
    backends = judge(finding for findings in sections.values() for finding in findings)
    ok, auto = any(backend.runs for backend in backends), would_take(backends)
    if model is not None:
        opened = run_apart("model", partial(probe_model, model.absolute()), _MODEL_S) or []
        ok = all(finding.state == WORKS for finding in opened)
        auto = "; ".join(finding.detail for finding in opened) if ok else "nothing: the model can't be opened"
        sections["model"] = opened
    return Report(sections, backends, auto, ok)


def probe_tensorrt(backend: str) -> list[Finding]:
    """Builds a tiny engine. Without a driver TensorRT 11 crashes, so then it is only imported."""
    kind = KINDS[backend]
    no_gpu = find_no_gpu()
    try:
        library = load_library(kind)
        if kind is TENSORRT and no_gpu:
            idle = f"{library.version} neither builds nor runs without a GPU"
            return [Finding(kind.title, BROKEN, idle, no_gpu.advice)]
        size = _build_tiny(library)
    except (BackendError, MissingDependencyError) as error:
        return [unusable(kind.title, error)]
    target = " for sm89" if kind is TENSORRT_RTX else ""
    built = Finding(kind.title, WORKS, f"{library.version}, a tiny engine was built{target} ({size} bytes)")
    return [built] if no_gpu or kind is TENSORRT else [built, rtx_on(list_gpus()[0])]


def rtx_on(gpu: Gpu) -> Finding:
    """Returns whether TensorRT-RTX can build for a GPU."""
    if gpu.target in RTX_TARGETS:
        return Finding(RTX_ON_GPU, WORKS, f"it knows {gpu.name} ({gpu.target})")
    known = ", ".join(RTX_TARGETS)
    return Finding(RTX_ON_GPU, MISSING, f"it knows {known}, and {gpu.name} is {gpu.target}", "use TensorRT")


def probe_onnxruntime() -> list[Finding]:
    """Runs a tiny model on each provider that salema uses; the others are only listed."""
    try:
        from salema.runtime.backends import ort_session  # noqa: PLC0415 - whether it can be imported is the question
    except MissingDependencyError as error:
        return [unusable(ORT, error)]
    import onnxruntime as ort  # noqa: PLC0415

    ort.set_default_logger_severity(_SILENT)
    ours = {"CPU": ort_session.CPU, "CUDA": ort_session.CUDA, "TensorRT": ort_session.TENSORRT}
    others = sorted({*ort.get_available_providers()} - {*ours.values(), "AzureExecutionProvider"})
    imported = Finding(ORT, WORKS, ort.__version__ + (f", not tried: {', '.join(others)}" if others else ""))
    return [imported, *(_try_provider(ort, title, provider) for title, provider in ours.items())]


def probe_model(model: Path) -> list[Finding]:
    """Opens a model as `salema-run --backend auto` does."""
    with open_session(model) as session:
        return [Finding("model", WORKS, session.description)]


def judge(findings: Iterable[Finding]) -> list[Backend]:
    """Returns for each backend whether it can run and build here, judged by the findings."""
    by_name = {finding.name: finding for finding in findings}
    return [_judge_one(name, needs, by_name) for name, needs in _RUN_NEEDS.items()]


def would_take(backends: Iterable[Backend]) -> str:
    """Returns what `--backend auto` takes, which depends on the model."""
    runs = {backend.name for backend in backends if backend.runs}
    engines = [kind for kind in (TENSORRT, TENSORRT_RTX) if kind.backend in runs]
    choices = [f"{kind.title} where the model's folder holds {kind.engine_file}" for kind in engines]
    if "onnxruntime (cuda)" in runs:
        choices.append(f"{ORT} on CUDA")
    elif on_cpu := [title for name, title in _ON_CPU.items() if name in runs]:
        choices.append(
            f"the fastest on this CPU of {', '.join(on_cpu)}, after a short trial of the model"
            if len(on_cpu) > 1
            else f"{on_cpu[0]} on the CPU"
        )
    return ", else ".join(choices) or "nothing"


def _judge_one(name: str, needs: tuple[str, ...], by_name: Mapping[str, Finding]) -> Backend:
    lacking = [by_name.get(need, Finding(need, MISSING, "not tried")) for need in needs]
    lacking = [finding for finding in lacking if finding.state != WORKS]
    builds = None
    if name in _BUILD_NEEDS:
        builds = all(need in by_name and by_name[need].state == WORKS for need in _BUILD_NEEDS[name])
    why = f"{lacking[0].name}: {lacking[0].detail}" if lacking else ""
    advice = dict.fromkeys(finding.advice for finding in lacking if finding.advice)
    return Backend(name, not lacking, builds, why, tuple(advice))


def _build_tiny(library: Library) -> int:
    """Returns the bytes of an engine of the tiny model: for this GPU, with TensorRT-RTX for sm89."""
    trt, must = library.trt, library.must
    with library.told("building a tiny engine"):
        builder = must(trt.Builder(library.logger), "making a builder")
        network = must(builder.create_network(), "making a network")
        parser = trt.OnnxParser(network, library.logger)
        must(parser.parse(TINY_MODEL), "reading a tiny model")
        config = must(builder.create_builder_config(), "making a configuration")
        if library.kind is TENSORRT_RTX:
            config.num_compute_capabilities = 1
            must(config.set_compute_capability(trt.ComputeCapability.SM89, 0), "setting the target")
        plan = must(builder.build_serialized_network(network, config), "building a tiny engine")
    return int(plan.nbytes)


def _try_provider(ort: Any, title: str, provider: str) -> Finding:
    from salema.runtime.backends.ort_session import load_libraries  # noqa: PLC0415 - it may be missing

    name = f"{ORT} {title}"
    if provider not in ort.get_available_providers():
        return Finding(name, MISSING, f"this ONNX Runtime has no {provider}", _INSTALL_ORT_GPU)
    on_gpu = title in _ORT_NEEDS
    no_gpu = find_no_gpu() if on_gpu else None
    if no_gpu:
        return Finding(name, BROKEN, f"installed, but {no_gpu.detail}", no_gpu.advice)
    try:
        if on_gpu:  # as a session does
            load_libraries(provider)
        _run_tiny(ort, provider)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's own classes have no common public base
        why = (_why_not_loaded(ort, title) if on_gpu else "") or reason(error)
        return Finding(name, BROKEN, why, _ORT_NEEDS.get(title, "pip install --force-reinstall onnxruntime"))
    return Finding(name, WORKS, f"{ort.__version__}, a tiny model ran")


def _run_tiny(ort: Any, provider: str) -> None:
    import numpy as np  # noqa: PLC0415 - if it is broken, the other probes still report

    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    wanted = list(dict.fromkeys([provider, "CPUExecutionProvider"]))
    session = ort.InferenceSession(TINY_MODEL, options, providers=wanted, enable_fallback=0)
    if session.get_providers()[0] != provider:
        raise BackendError(f"ONNX Runtime took {session.get_providers()[0]} instead")
    (output,) = session.run(None, {"x": np.array(_TINY_INPUT, np.float32).reshape(1, 1, 3, 3)})
    if output.item() != _TINY_OUTPUT:
        raise BackendError(f"a tiny model gave {output.item()} instead of {_TINY_OUTPUT}")


def _why_not_loaded(ort: Any, title: str) -> str:
    """Loads the provider's library as ONNX Runtime does, which writes what is missing only to its log."""
    try:
        for part in ("shared", title.lower()):
            path = Path(ort.__file__).with_name("capi") / f"libonnxruntime_providers_{part}.so"
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    except OSError as error:
        return reason(error)
    return ""
