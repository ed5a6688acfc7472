"""Opens a model with the backend that was named, or with the first that works here, and says why that."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from salema.runtime.errors import BackendError, MissingDependencyError, ModelError, SalemaError, UsageError
from salema.runtime.onnx_metadata import read_spec
from salema.runtime.session import MODEL_FILE, NCNN_FILES, PART_FILES, find_parts
from salema.runtime.spec import TRANSPOSED

if TYPE_CHECKING:
    from pathlib import Path

    from salema.runtime.session import Session

_NOT_HERE = (BackendError, MissingDependencyError, ModelError, OSError)


def open_named(path: Path, backend: str, device: str, *, graphs: bool) -> Session:
    """Opens a model with one backend; see `open_session`."""
    if _is_engine(path) and backend not in {"tensorrt", "tensorrt-rtx"}:
        raise UsageError(f"{path}: an engine, which --backend {backend} can't run; name its folder, {path.parent}")
    if backend == "ncnn":
        return _open_ncnn(path, device)
    if backend.startswith("openvino"):
        return _open_openvino(path, backend, device)
    if backend.startswith("onnxruntime"):
        files = find_parts(path)
        if len(files) > 1:
            return _open_split_on_cpu(files, backend, device)
        from salema.runtime.backends.ort_session import OrtSession  # noqa: PLC0415 - a backend is loaded when chosen

        return OrtSession(files[0], device, with_tensorrt=backend == "onnxruntime-tensorrt")
    if device == "cpu":
        raise UsageError(f"--backend {backend} --device cpu: it runs on NVIDIA GPUs only; take --backend onnxruntime")
    from salema.runtime.gpu.trt_library import KINDS  # noqa: PLC0415
    from salema.runtime.gpu.trt_session import open_tensorrt  # noqa: PLC0415

    return open_tensorrt(path, KINDS[backend], int(device.partition(":")[2] or 0), graphs=graphs)


def _open_ncnn(path: Path, device: str) -> Session:
    _check_cpu("ncnn", device)
    from salema.runtime.backends.ncnn_files import find_ncnn  # noqa: PLC0415
    from salema.runtime.backends.ncnn_session import NcnnSession  # noqa: PLC0415

    return NcnnSession(find_ncnn(path))


def _open_openvino(path: Path, backend: str, device: str) -> Session:
    _check_cpu(backend, device)
    files = find_parts(path)
    if len(files) > 1:
        raise UsageError(
            f"--backend {backend}: {files[0].parent} holds a split model; take --backend onnxruntime, or export without"
            " --split"
        )
    from salema.runtime.backends.openvino_session import OpenVinoSession  # noqa: PLC0415

    return OpenVinoSession(files[0], backend)


def _check_cpu(backend: str, device: str) -> None:
    if device not in {"auto", "cpu"}:
        raise UsageError(f"--backend {backend} --device {device}: it runs on the CPU only; take --device cpu")


def _open_split_on_cpu(files: tuple[Path, ...], backend: str, device: str) -> Session:
    if backend != "onnxruntime" or device not in {"auto", "cpu"}:
        raise UsageError(
            f"--backend {backend} --device {device}: ONNX Runtime runs split models on the CPU only; build their"
            f" engines with salema-export --from {files[0].parent} --engine tensorrt, or export without --split"
        )
    from salema.runtime.backends.ort_split_session import OrtSplitSession  # noqa: PLC0415

    return OrtSplitSession(*files)


def open_first(path: Path, device: str, *, graphs: bool) -> Session:
    """Opens the fastest backend that works here; what is there and doesn't work is named.

    Engines come first, which is not measured yet; then on the CPU what the model was exported for, then ONNX Runtime:
    the order of `benchmarks/results/cpu.jsonl`.
    """
    if path.name in NCNN_FILES:
        return _open_ncnn(path, device)
    passed_over: list[str] = []
    session = _open_engine(path, device, passed_over, graphs=graphs) or _open_on_cpu(path, device, passed_over)
    return session or _open_onnx(path, device, passed_over, graphs=graphs)


def _open_engine(path: Path, device: str, passed_over: list[str], *, graphs: bool) -> Session | None:
    from salema.runtime.gpu.trt_library import KINDS, kind_of  # noqa: PLC0415

    folder = path if path.is_dir() else path.parent
    named = kind_of(path.name) if _is_engine(path) else None
    if named and device == "cpu":
        raise UsageError(
            f"{path} --device cpu: engines run on NVIDIA GPUs only; name its folder, {path.parent}, for the model"
        )
    for kind in KINDS.values():
        there = _is_model(path) and any((folder / kind.engine_name(part)).is_file() for part in ("model", "encoder"))
        if device == "cpu" or not (kind is named if named else there):
            continue
        try:
            session = open_named(path, kind.backend, device, graphs=graphs)
        except _NOT_HERE as error:
            if named:
                raise
            passed_over.append(f"{kind.title} passed over: {error}")
        else:
            return _because("its engine is there", session, passed_over)
    return None


def _open_on_cpu(path: Path, device: str, passed_over: list[str]) -> Session | None:
    """Opens what the model was exported for, if that runs on the CPU and no GPU is to be had instead."""
    folder = path if path.is_dir() else path.parent
    choices = {}
    if _is_model(path) and (folder / NCNN_FILES[0]).is_file():
        choices["ncnn"] = ("ncnn, which is faster on the CPU,", "its files are there")
    if _is_model(path) and _is_for_openvino(path):
        choices["openvino"] = ("OpenVINO", "installed, and the graph is in the form that suits it")
    if not choices or not _stays_on_cpu(device):
        return None
    for backend, (title, why) in choices.items():
        try:
            return _because(why, open_named(path, backend, "cpu", graphs=False), passed_over)
        except _NOT_HERE as error:  # noqa: PERF203 - opening takes a second
            passed_over.append(f"{title} passed over: {error}")
    return None


def _is_model(path: Path) -> bool:
    """Whether what was named is a model, not one of its engines."""
    return path.is_dir() or path.name in {MODEL_FILE, *PART_FILES}


def _is_engine(path: Path) -> bool:
    return path.suffix == ".engine" and not path.is_dir()


def _is_for_openvino(path: Path) -> bool:
    if find_spec("openvino") is None:
        return False
    with suppress(ModelError, OSError):  # ONNX Runtime says what is wrong
        files = find_parts(path)
        return len(files) == 1 and TRANSPOSED in read_spec(files[0]).rewrites
    return False


def _stays_on_cpu(device: str) -> bool:
    """Whether ONNX Runtime would run on the CPU."""
    if device != "auto":
        return device == "cpu"
    try:
        from salema.runtime.backends.ort_session import cuda_may_start  # noqa: PLC0415
    except MissingDependencyError:
        return True
    return not cuda_may_start()


def _open_onnx(path: Path, device: str, passed_over: list[str], *, graphs: bool) -> Session:
    """Opens ONNX Runtime, the last choice; if that fails too, what was passed over comes first."""
    try:
        session = open_named(path, "onnxruntime", device, graphs=graphs)
    except SalemaError as error:
        if not passed_over:
            raise
        raise BackendError(f"{'; '.join(passed_over)}; and then: {error}") from error
    session.description += "".join(f"; {why}" for why in passed_over)
    return session


def _because(why: str, session: Session, passed_over: list[str]) -> Session:
    session.description += f" (auto: {'; '.join([why, *passed_over])})"
    return session
