"""Opens a model with the backend that the user named, or with the first that works here, and says why."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from salema.runtime.errors import BackendError, MissingDependencyError, ModelError, SalemaError, UsageError
from salema.runtime.gpu.trt_library import KINDS, kind_of
from salema.runtime.model_folder import NCNN_FILES, ModelFolder, look_up
from salema.runtime.onnx_metadata import read_spec
from salema.runtime.session import BACKENDS, DEVICE, DEVICES, Session
from salema.runtime.spec import TRANSPOSED

_NOT_HERE = (BackendError, MissingDependencyError, ModelError, OSError)


def open_session(path: str | Path, backend: str = "auto", device: str = "auto", *, graphs: bool = True) -> Session:
    """Loads an exported model.

    Args:
        path: the folder that `salema-export` wrote, or an ONNX file or engine in it.
        backend: one of `BACKENDS`. `auto` takes the first that works of: TensorRT, TensorRT-RTX (if their engines have
            been built); on the CPU ncnn (if its files are there) and OpenVINO in float32 (if it is installed and the
            model was exported for it); ONNX Runtime. The session's `reason` says why, and why no other.
        device: `auto`, `cpu`, `cuda` or `cuda:N` for GPU number N.
        graphs: whether to replay each step as a CUDA graph, if the backend can.

    Raises:
        UsageError: there is no such backend or device, or the two don't go together.
        ModelError: the model or its engine is missing, foreign, corrupt, of another version or for another GPU.
        MissingDependencyError: the backend is not installed.
        BackendError: the named backend or device can't be used.
    """
    if backend not in BACKENDS:
        raise UsageError(f"--backend {backend}: not one of {', '.join(BACKENDS)}")
    if not DEVICE.fullmatch(device):
        raise UsageError(f"--device {device}: not one of {', '.join(DEVICES)}")
    model = look_up(path)
    if backend == "auto":
        return _open_first(model, device, graphs=graphs)
    return _open_named(model, backend, device, graphs=graphs)


def _open_named(model: ModelFolder, backend: str, device: str, *, graphs: bool) -> Session:
    """Opens a model with one backend. It imports the library of that backend only."""
    if model.is_engine and backend not in KINDS:
        raise UsageError(
            f"{model.named}: an engine, which --backend {backend} can't run; name its folder, {model.folder}"
        )
    if backend == "ncnn":
        return _open_ncnn(model, device)
    if backend.startswith("openvino"):
        return _open_openvino(model, backend, device)
    if backend.startswith("onnxruntime"):
        if model.is_split:
            return _open_split_on_cpu(model, backend, device)
        from salema.runtime.backends.ort_session import OrtSession  # noqa: PLC0415

        (file,) = model.onnx_files()
        return OrtSession(file, device, with_tensorrt=backend == "onnxruntime-tensorrt")
    if device == "cpu":
        raise UsageError(f"--backend {backend} --device cpu: it runs on NVIDIA GPUs only; take --backend onnxruntime")
    from salema.runtime.gpu.trt_session import open_tensorrt  # noqa: PLC0415

    return open_tensorrt(model, KINDS[backend], int(device.partition(":")[2] or 0), graphs=graphs)


def _open_ncnn(model: ModelFolder, device: str) -> Session:
    _check_cpu("ncnn", device)
    from salema.runtime.backends.ncnn_session import NcnnSession  # noqa: PLC0415

    return NcnnSession(model.ncnn_files())


def _open_openvino(model: ModelFolder, backend: str, device: str) -> Session:
    _check_cpu(backend, device)
    files = model.onnx_files()
    if len(files) > 1:
        raise UsageError(
            f"--backend {backend}: {model.folder} holds a split model; take --backend onnxruntime, or export without"
            " --split"
        )
    from salema.runtime.backends.openvino_session import OpenVinoSession  # noqa: PLC0415

    return OpenVinoSession(files[0], backend)


def _check_cpu(backend: str, device: str) -> None:
    if device not in {"auto", "cpu"}:
        raise UsageError(f"--backend {backend} --device {device}: it runs on the CPU only; take --device cpu")


def _open_split_on_cpu(model: ModelFolder, backend: str, device: str) -> Session:
    files = model.onnx_files()
    if backend != "onnxruntime" or device not in {"auto", "cpu"}:
        raise UsageError(
            f"--backend {backend} --device {device}: ONNX Runtime runs split models on the CPU only; build their"
            f" engines with salema-export --from {model.folder} --engine tensorrt, or export without --split"
        )
    from salema.runtime.backends.ort_split_session import OrtSplitSession  # noqa: PLC0415

    return OrtSplitSession(*files)


def _open_first(model: ModelFolder, device: str, *, graphs: bool) -> Session:
    """Opens the fastest backend that works here; the reason names those that are present and don't work.

    Engines come first; that they are the fastest is not measured yet. On the CPU, the backend that the model was
    exported for comes before ONNX Runtime: that is the order in `benchmarks/results/cpu.jsonl`.
    """
    if model.named.name in NCNN_FILES:
        return _open_ncnn(model, device)
    passed_over: list[str] = []
    session = _open_engine(model, device, passed_over, graphs=graphs) or _open_on_cpu(model, device, passed_over)
    return session or _open_onnx(model, device, passed_over, graphs=graphs)


def _open_engine(model: ModelFolder, device: str, passed_over: list[str], *, graphs: bool) -> Session | None:
    named = kind_of(model.named.name) if model.is_engine else None
    if named and device == "cpu":
        raise UsageError(
            f"{model.named} --device cpu: engines run on NVIDIA GPUs only; name its folder, {model.folder}, for the"
            " model"
        )
    for kind in KINDS.values():
        is_built = model.is_model and model.has_engine(kind)
        if device == "cpu" or not (kind is named if named else is_built):
            continue
        try:
            session = _open_named(model, kind.backend, device, graphs=graphs)
        except _NOT_HERE as error:
            if named:
                raise
            passed_over.append(f"{kind.title} passed over: {error}")
        else:
            return _because(session, "its engine is is_built", *passed_over)
    return None


def _open_on_cpu(model: ModelFolder, device: str, passed_over: list[str]) -> Session | None:
    """Opens the CPU backend that the model was exported for, unless ONNX Runtime can use a GPU."""
    choices = {}
    if model.is_model and model.has_ncnn:
        choices["ncnn"] = ("ncnn, which is faster on the CPU,", "its files are there")
    if model.is_model and _is_for_openvino(model):
        choices["openvino"] = ("OpenVINO", "installed, and the graph is in the form that suits it")
    if not choices or not _stays_on_cpu(device):
        return None
    for backend, (title, why) in choices.items():
        try:
            return _because(_open_named(model, backend, "cpu", graphs=False), why, *passed_over)
        except _NOT_HERE as error:  # noqa: PERF203 - opening takes a second
            passed_over.append(f"{title} passed over: {error}")
    return None


def _is_for_openvino(model: ModelFolder) -> bool:
    if model.is_split or find_spec("openvino") is None:
        return False
    with suppress(ModelError, OSError):  # ONNX Runtime says what is wrong
        return TRANSPOSED in read_spec(*model.onnx_files()).rewrites
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


def _open_onnx(model: ModelFolder, device: str, passed_over: list[str], *, graphs: bool) -> Session:
    """Opens ONNX Runtime, the last choice. If it fails too, the error begins with the backends passed over."""
    try:
        session = _open_named(model, "onnxruntime", device, graphs=graphs)
    except SalemaError as error:
        if not passed_over:
            raise
        raise BackendError(f"{'; '.join(passed_over)}; and then: {error}") from error
    return _because(session, *([session.reason] if session.reason else []), *passed_over)


def _because(session: Session, *reasons: str) -> Session:
    session.reason = "; ".join(reasons)
    return session
