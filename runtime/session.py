"""The contract every backend keeps, and the one place that chooses a backend."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from salema.runtime.errors import BackendError, MissingDependencyError, ModelError, SalemaError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from salema.runtime.device_jobs import Pictures
    from salema.runtime.postprocess import Look
    from salema.runtime.spec import ModelSpec

States = tuple[Any, ...]
"""Handles of the backend that made them (OrtValue, device buffer, array), in the order of `spec.states`."""

MODEL_FILE = "model.onnx"
PART_FILES = ("encoder.onnx", "decoder.onnx")
NCNN_FILES = ("model.ncnn.param", "model.ncnn.bin", "model.ncnn.json")
BACKENDS = ("auto", "tensorrt", "tensorrt-rtx", "onnxruntime", "onnxruntime-tensorrt", "ncnn")
DEVICES = ("auto", "cpu", "cuda", "cuda:N")
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")


class Session(Protocol):
    """One loaded model. It has no memory of its own: the caller carries the states."""

    spec: ModelSpec
    description: str
    """Backend, device and why they were chosen, for people."""

    def step(
        self, frames: NDArray[np.uint8], states: States, mix: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], States]:
        """Runs one time step of N independent streams.

        Args:
            frames: BGR `[N, H, W, 3]` at network size.
            states: what `from_host` or the step before gave; left untouched.
            mix: `[N]`, weight of the new frame; 1 starts a stream anew. Ignored where there is no EMA.

        Returns:
            The sigmoid maps `[N, H, W]`, and the states after the step, still on the device.
        """
        ...

    def from_host(self, arrays: Mapping[str, NDArray[np.float32]]) -> States:
        """Puts states `{name: [N, C, H, W]}` on the device."""
        ...

    def to_host(self, states: States) -> dict[str, NDArray[np.float32]]:
        """Copies states to the host as `{name: [N, C, H, W]}`."""
        ...

    def close(self) -> None:
        """Frees the model."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@runtime_checkable
class PictureSession(Session, Protocol):
    """A session that also resizes source frames and draws pictures where the network runs."""

    def step_picture(
        self, image_bgr: NDArray[np.uint8], states: States, mix: NDArray[np.float32], look: Look, *, raw: bool = False
    ) -> tuple[Pictures, States]:
        """Runs one step of one stream from a source frame, uint8 BGR `[h, w, 3]`, to pictures of it."""
        ...


def _folder_of(path: str | Path) -> str:
    given = Path(path)
    return shlex.quote(str(given.parent if given.suffix in {".onnx", ".engine"} else given))


def find_parts(path: str | Path) -> tuple[Path, ...]:
    """Returns the ONNX files that `path` (a folder that `salema-export` wrote, or a file in it) stands for.

    Returns:
        One file; or two, encoder and decoder, of a split model.

    Raises:
        ModelError: there is none.
    """
    given = Path(path)
    folder = given if given.is_dir() else given.parent
    parts = tuple(folder / name for name in PART_FILES)
    if (given.is_dir() and not (folder / MODEL_FILE).is_file() and parts[0].is_file()) or given in parts:
        missing = [part for part in parts if not part.is_file()]
        if missing:
            raise ModelError(f"{missing[0]}: missing, and it is half of a split model; export it again with --split")
        return parts
    return (find_model(given),)


def find_model(path: str | Path) -> Path:
    """Returns the ONNX file of a whole step that `path` (a folder, or the file itself) stands for.

    Raises:
        ModelError: there is none.
    """
    given = Path(path)
    model = given / MODEL_FILE if given.is_dir() else given
    if not model.is_file():
        raise ModelError(f"{model}: no such model; make one with: salema-export --weights FILE -o {_folder_of(path)}")
    return model


def open_session(path: str | Path, backend: str = "auto", device: str = "auto", *, graphs: bool = True) -> Session:
    """Loads an exported model.

    Args:
        path: the folder that `salema-export` wrote, or an ONNX file or engine in it.
        backend: one of `BACKENDS`. `auto` takes the first that works of a TensorRT engine, a TensorRT-RTX engine (where
            they have been built), ncnn (on the CPU, where its files are) and ONNX Runtime, and says in `description`
            what it took, and why not another.
        device: `auto`, `cpu`, `cuda` or `cuda:N` for GPU number N.
        graphs: replay each step as a CUDA graph, where the backend can.

    Raises:
        UsageError: the backend or device has no such name, or they don't go together.
        ModelError: the model or its engine is missing, foreign, corrupt, of another version or for another GPU.
        MissingDependencyError: the backend is not installed.
        BackendError: the backend or device that was asked for can't be used.
    """
    if backend not in BACKENDS:
        raise UsageError(f"--backend {backend}: not one of {', '.join(BACKENDS)}")
    if not _DEVICE.fullmatch(device):
        raise UsageError(f"--device {device}: not one of {', '.join(DEVICES)}")
    if not Path(path).exists():
        raise ModelError(f"{path}: no such model; make one with: salema-export --weights FILE -o {_folder_of(path)}")
    if backend == "auto":
        return _open_first(Path(path), device, graphs=graphs)
    return _open(Path(path), backend, device, graphs=graphs)


def _open(path: Path, backend: str, device: str, *, graphs: bool) -> Session:
    if backend.startswith("onnxruntime"):
        files = find_parts(path)
        if len(files) > 1:
            return _open_split_on_cpu(files, backend, device)
        from salema.runtime.ort_session import OrtSession  # noqa: PLC0415 - a backend is loaded when chosen

        return OrtSession(files[0], device, with_tensorrt=backend == "onnxruntime-tensorrt")
    if backend == "ncnn":
        return _open_ncnn(path, device)
    if device == "cpu":
        raise UsageError(f"--backend {backend} --device cpu: it runs on NVIDIA GPUs only; take --backend onnxruntime")
    from salema.runtime.trt_library import KINDS  # noqa: PLC0415
    from salema.runtime.trt_session import open_tensorrt  # noqa: PLC0415

    return open_tensorrt(path, KINDS[backend], int(device.partition(":")[2] or 0), graphs=graphs)


def _open_ncnn(path: Path, device: str) -> Session:
    if device not in {"auto", "cpu"}:
        raise UsageError(f"--backend ncnn --device {device}: it runs on the CPU here; take --device cpu")
    from salema.runtime.ncnn_files import find_ncnn  # noqa: PLC0415
    from salema.runtime.ncnn_session import NcnnSession  # noqa: PLC0415

    return NcnnSession(find_ncnn(path))


def _open_split_on_cpu(files: tuple[Path, ...], backend: str, device: str) -> Session:
    if backend != "onnxruntime" or device not in {"auto", "cpu"}:
        raise UsageError(
            f"--backend {backend} --device {device}: ONNX Runtime runs split models on the CPU only; build their"
            f" engines with salema-export --from {files[0].parent} --engine tensorrt, or export without --split"
        )
    from salema.runtime.ort_split_session import OrtSplitSession  # noqa: PLC0415

    return OrtSplitSession(*files)


def _open_first(path: Path, device: str, *, graphs: bool) -> Session:
    """Opens the fastest backend that works here; engines that are there and don't work are named."""
    from salema.runtime.trt_library import KINDS, kind_of  # noqa: PLC0415

    if path.name in NCNN_FILES:
        return _open_ncnn(path, device)
    folder = path if path.is_dir() else path.parent
    named = kind_of(path.name) if path.suffix == ".engine" else None
    beside = path.is_dir() or path.name in {MODEL_FILE, *PART_FILES}
    passed_over = []
    for kind in KINDS.values():
        there = beside and any((folder / kind.engine_name(part)).is_file() for part in ("model", "encoder"))
        if device == "cpu" or not (kind is named if named else there):
            continue
        try:
            session = _open(path, kind.backend, device, graphs=graphs)
        except (BackendError, MissingDependencyError, ModelError, OSError) as error:
            if named:
                raise
            passed_over.append(f"{kind.title} passed over: {error}")
        else:
            session.description += f" (auto: its engine is there{''.join(f'; {why}' for why in passed_over)})"
            return session
    if beside and (folder / NCNN_FILES[0]).is_file() and _stays_on_cpu(device):
        opened = _try_ncnn(path, passed_over)
        if opened is not None:
            return opened
    return _open_onnx(path, device, passed_over, graphs=graphs)


def _try_ncnn(path: Path, passed_over: list[str]) -> Session | None:
    """Opens ncnn; if it can't be, returns None and adds why."""
    try:
        session = _open_ncnn(path, "cpu")
    except (BackendError, MissingDependencyError, ModelError, OSError) as error:
        passed_over.append(f"ncnn, which is faster on the CPU, passed over: {error}")
        return None
    session.description += f" (auto: its files are there{''.join(f'; {why}' for why in passed_over)})"
    return session


def _stays_on_cpu(device: str) -> bool:
    """Says whether ONNX Runtime would run on the CPU."""
    if device != "auto":
        return device == "cpu"
    try:
        from salema.runtime.ort_session import cuda_may_start  # noqa: PLC0415
    except MissingDependencyError:
        return True
    return not cuda_may_start()


def _open_onnx(path: Path, device: str, passed_over: list[str], *, graphs: bool) -> Session:
    """Opens ONNX Runtime, the last choice; if that fails too, what was passed over comes first."""
    try:
        session = _open(path, "onnxruntime", device, graphs=graphs)
    except SalemaError as error:
        if not passed_over:
            raise
        raise BackendError(f"{'; '.join(passed_over)}; and then: {error}") from error
    session.description += "".join(f"; {why}" for why in passed_over)
    return session


def warn_untrained(spec: ModelSpec) -> None:
    """Says on stderr that the maps of seeded weights mean nothing."""
    if not spec.trained:
        print(f"note: {spec.weights} weights are untrained; the maps show that it runs, nothing more", file=sys.stderr)
