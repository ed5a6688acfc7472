"""Opens a model with the backend that the user named, or with the fastest that works here, and says why."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from salema.kernels.gpus import list_gpus
from salema.runtime.backends.ncnn_form import FORM_KEY, read_form
from salema.runtime.backends.tuning import NOT_HERE, RECORD_FILE, Open, Record, installed, try_all
from salema.runtime.cpu import threads_for
from salema.runtime.errors import BackendError, MissingDependencyError, ModelError, SalemaError, UsageError
from salema.runtime.files.turns import alone_with
from salema.runtime.gpu.trt_library import KINDS, kind_of
from salema.runtime.model_folder import NCNN_FILES, ModelFolder, look_up
from salema.runtime.onnx_metadata import read_metadata, read_spec
from salema.runtime.session import BACKENDS, DEVICE, DEVICES, Session
from salema.runtime.spec import ModelSpec

_MOST_WAIT_S = 60.0  # for another process's trial


@dataclass(frozen=True)
class _How:
    """How to open a model: the arguments of `open_session`."""

    backend: str
    device: str
    graphs: bool
    threads: int
    retune: bool
    say: Callable[[str], None]
    tried: list[str] = field(default_factory=list)
    """The backends of a trial that was made."""


def open_session(
    path: str | Path,
    backend: str = "auto",
    device: str = "auto",
    *,
    graphs: bool = True,
    threads: int | None = None,
    retune: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Session:
    """Loads an exported model: its folder, or an ONNX file or engine in it; the other arguments are those of `load`.

    The backend `auto` takes the engine of TensorRT or TensorRT-RTX that has been built and works here; else ONNX
    Runtime, if it can use a GPU; else the fastest on this CPU of ONNX Runtime, OpenVINO in float32 and ncnn. A short
    trial tells which that is; it is kept beside the model. The session's `reason` says why, and why no other.

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
    how = _How(backend, device, graphs, threads_for(threads), retune, say)
    model = look_up(path)
    if model.named.name in NCNN_FILES:
        raise UsageError(f"{model.named}: a file for ncnn's own programs; name its folder, {model.folder}")
    return _open_first(model, how) if backend == "auto" else _open_named(model, how)


def _open_named(model: ModelFolder, how: _How) -> Session:
    """Opens a model with one backend. It imports the library of that backend only."""
    if model.is_engine and how.backend not in KINDS:
        raise UsageError(
            f"{model.named}: an engine, which --backend {how.backend} can't run; name its folder, {model.folder}"
        )
    if how.backend.startswith(("ncnn", "openvino")):
        return _open_cpu_only(model, how)
    if how.backend.startswith("onnxruntime"):
        if model.is_split:
            return _open_split_on_cpu(model, how)
        from salema.runtime.backends.ort_session import OrtSession  # noqa: PLC0415

        (file,) = model.onnx_files()
        with_tensorrt = how.backend == "onnxruntime-tensorrt"
        return OrtSession(file, how.device, with_tensorrt=with_tensorrt, threads=how.threads)
    if how.device == "cpu":
        raise UsageError(
            f"--backend {how.backend} --device cpu: it runs on NVIDIA GPUs only; take --backend onnxruntime"
        )
    from salema.runtime.gpu.trt_session import open_tensorrt  # noqa: PLC0415

    return open_tensorrt(model, KINDS[how.backend], int(how.device.partition(":")[2] or 0), graphs=how.graphs)


def _open_cpu_only(model: ModelFolder, how: _How) -> Session:
    if how.device not in {"auto", "cpu"}:
        raise UsageError(f"--backend {how.backend} --device {how.device}: it runs on the CPU only; take --device cpu")
    files = model.onnx_files()
    if len(files) > 1:
        raise UsageError(
            f"--backend {how.backend}: {model.folder} holds a split model; take --backend onnxruntime, or export"
            " without --split"
        )
    if how.backend == "ncnn":
        from salema.runtime.backends.ncnn_session import NcnnSession  # noqa: PLC0415

        return NcnnSession(files[0], threads=how.threads)
    from salema.runtime.backends.openvino_session import OpenVinoSession  # noqa: PLC0415

    return OpenVinoSession(files[0], how.backend, how.threads)


def _open_split_on_cpu(model: ModelFolder, how: _How) -> Session:
    files = model.onnx_files()
    if how.backend != "onnxruntime" or how.device not in {"auto", "cpu"}:
        raise UsageError(
            f"--backend {how.backend} --device {how.device}: ONNX Runtime runs split models on the CPU only; build"
            f" their engines with salema-export --from {model.folder} --engine tensorrt, or export without --split"
        )
    from salema.runtime.backends.ort_split_session import OrtSplitSession  # noqa: PLC0415

    return OrtSplitSession(*files, threads=how.threads)


def _open_first(model: ModelFolder, how: _How) -> Session:
    """Opens the fastest backend that works here; the reason names those that are present and don't work.

    Engines come first; that they are the fastest is not measured yet.
    """
    passed_over: list[str] = []
    session = _open_engine(model, how, passed_over) or _open_on_cpu(model, how, passed_over)
    session = session or _open_onnx(model, how, passed_over)
    if how.retune and not how.tried:
        how.say(f"--retune: no trial is made here: {session.reason or f'only {session.backend} runs this model'}")
    return session


def _open_engine(model: ModelFolder, how: _How, passed_over: list[str]) -> Session | None:
    named = kind_of(model.named.name) if model.is_engine else None
    if named and how.device == "cpu":
        raise UsageError(
            f"{model.named} --device cpu: engines run on NVIDIA GPUs only; name its folder, {model.folder}, for the"
            " model"
        )
    for kind in KINDS.values():
        is_built = model.is_model and model.has_engine(kind)
        if how.device == "cpu" or not (kind is named if named else is_built):
            continue
        try:
            session = _open_named(model, replace(how, backend=kind.backend))
        except NOT_HERE as error:
            if named:
                raise
            passed_over.append(f"{kind.title} passed over: {error}")
        else:
            session.reason = "its engine is built"
            return _because(session, *passed_over)
    return None


def _open_on_cpu(model: ModelFolder, how: _How, passed_over: list[str]) -> Session | None:
    """Opens the fastest backend on this CPU, unless ONNX Runtime can use a GPU, or is the only one."""
    if model.is_engine or model.is_split or not _stays_on_cpu(how.device, passed_over):
        return None
    try:
        (file,) = model.onnx_files()
        spec, has_form = read_spec(file), read_metadata(file, FORM_KEY) is not None
    except (ModelError, OSError):  # ONNX Runtime says what is wrong
        return None
    form = None
    try:
        form = read_form(file) if has_form else None
    except ModelError as error:
        passed_over.append(f"ncnn passed over: {error}")

    def opened(backend: str) -> Session:
        return _open_named(model, replace(how, backend=backend, device="cpu"))

    if form and form.scales:
        return _open_only("ncnn", opened, "only its form for ncnn is in INT8", passed_over)
    backends = [backend for backend in installed() if form or backend != "ncnn"]
    if len(backends) > 1:
        return _because(_open_fastest(model, spec, backends, how, opened), *passed_over)
    if backends in ([], ["onnxruntime"]):
        return None
    return _open_only(backends[0], opened, "no other backend for the CPU is installed", passed_over)


def _open_only(backend: str, opened: Open, why: str, passed_over: list[str]) -> Session | None:
    try:
        session = opened(backend)
    except NOT_HERE as error:
        passed_over.append(f"{backend} passed over: {error}")
        return None
    session.reason = why
    return _because(session, *passed_over)


def _open_fastest(model: ModelFolder, spec: ModelSpec, backends: list[str], how: _How, opened: Open) -> Session:
    """Opens the backend that a trial finds to be the fastest, an earlier one if there was one on this machine."""
    name = RECORD_FILE if model.is_model else f"{model.named.stem}.{RECORD_FILE}"
    record = Record(model.folder, spec, backends, how.threads, name)
    session = None if how.retune else _open_as_before(record, opened)
    if session is None:
        with alone_with(
            model.onnx_files()[0], _MOST_WAIT_S, lambda: how.say("auto: waiting for another process that tries it")
        ):
            session = None if how.retune else _open_as_before(record, opened)  # it may be there by now
            session = session or _tried(record, backends, how, opened)
    return _because(session, *([record.note] if record.note else []))


def _tried(record: Record, backends: list[str], how: _How, opened: Open) -> Session:
    how.tried.extend(backends)
    how.say(f"auto: trying {', '.join(backends)} for a moment, once for this machine")
    session, trial = try_all(backends, opened)
    session.reason = str(trial)
    record.keep(trial)
    return session


def _open_as_before(record: Record, opened: Open) -> Session | None:
    """Opens the backend that an earlier trial found to be the fastest; None if there was none, or it fails now."""
    trial = record.find()
    if trial is None:
        return None
    try:
        session = opened(trial.order[0])
    except NOT_HERE:  # the new trial says why
        return None
    session.reason = str(trial) + ("; --retune tries again" if trial.passed_over else "")
    return session


def _stays_on_cpu(device: str, passed_over: list[str]) -> bool:
    """Whether ONNX Runtime would run on the CPU. It is imported only where there is a GPU."""
    if device != "auto":
        return device == "cpu"
    try:
        if not list_gpus():
            return True
    except BackendError:  # no driver
        return True
    with suppress(MissingDependencyError):
        from salema.runtime.backends.ort_session import cuda_may_start  # noqa: PLC0415

        if cuda_may_start():
            return False
    passed_over.append("GPU passed over: no ONNX Runtime with CUDA is installed")
    return True


def _open_onnx(model: ModelFolder, how: _How, passed_over: list[str]) -> Session:
    """Opens ONNX Runtime, the last choice. If it fails too, the error begins with the backends passed over."""
    try:
        session = _open_named(model, replace(how, backend="onnxruntime"))
    except SalemaError as error:
        if not passed_over:
            raise
        raise BackendError(f"{'; '.join(passed_over)}; and then: {error}") from error
    return _because(session, *passed_over)


def _because(session: Session, *more: str) -> Session:
    """Adds to the session's reason."""
    session.reason = "; ".join([*([session.reason] if session.reason else []), *more])
    return session
