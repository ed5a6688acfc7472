"""The contract every backend keeps, and the one place that chooses a backend."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from salema.runtime.errors import ModelError, UsageError
from salema.runtime.telling import tell

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from salema.runtime.gpu.step_io import Pictures
    from salema.runtime.postprocess import Look
    from salema.runtime.spec import ModelSpec

States = tuple[Any, ...]
"""Handles of the backend that made them (OrtValue, device buffer, array), in the order of `spec.states`."""

MODEL_FILE = "model.onnx"
PART_FILES = ("encoder.onnx", "decoder.onnx")
NCNN_FILES = ("model.ncnn.param", "model.ncnn.bin", "model.ncnn.json")
BACKENDS = (
    *("auto", "tensorrt", "tensorrt-rtx", "onnxruntime", "onnxruntime-tensorrt"),
    *("ncnn", "openvino", "openvino-bf16"),
)
DEVICES = ("auto", "cpu", "cuda", "cuda:N")
DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")


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
class AbortableSession(Protocol):
    """A session whose step can be ended from another thread."""

    def abort(self) -> None:
        """Makes a step that is under way fail, if there is one; states that it was given are good still."""
        ...


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
            they have been built); on the CPU ncnn (where its files are) or OpenVINO in float32 (where it is installed
            and the model exported for it); and ONNX Runtime; and says in `description` what it took, and why not
            another.
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
    if not DEVICE.fullmatch(device):
        raise UsageError(f"--device {device}: not one of {', '.join(DEVICES)}")
    if not Path(path).exists():
        raise ModelError(f"{path}: no such model; make one with: salema-export --weights FILE -o {_folder_of(path)}")
    from salema.runtime.backends.opening import open_first, open_named  # noqa: PLC0415 - they know what is in this file

    if backend == "auto":
        return open_first(Path(path), device, graphs=graphs)
    return open_named(Path(path), backend, device, graphs=graphs)


def warn_untrained(spec: ModelSpec) -> None:
    """Says on stderr that the maps of seeded weights mean nothing."""
    if not spec.trained:
        tell(f"note: {spec.weights} weights are untrained; the maps show that it runs, nothing more")
