"""The contract every backend keeps, and the one place that chooses a backend."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from salema.runtime.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from salema.runtime.spec import ModelSpec

States = tuple[Any, ...]
"""Handles of the backend that made them (OrtValue, device buffer, array), in the order of `spec.states`."""

MODEL_FILE = "model.onnx"
BACKENDS = ("auto", "onnxruntime")
DEVICES = ("auto", "cpu", "cuda")


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


def find_model(path: str | Path) -> Path:
    """Returns the ONNX file that `path` (a folder that `salema-export` wrote, or the file itself) stands for.

    Raises:
        ModelError: there is none.
    """
    given = Path(path)
    model = given / MODEL_FILE if given.is_dir() else given
    if not model.is_file():
        raise ModelError(f"{model}: no such model; make one with: salema-export --weights FILE -o {given}")
    return model


def open_session(path: str | Path, backend: str = "auto", device: str = "auto") -> Session:
    """Loads an exported model.

    Args:
        path: the folder that `salema-export` wrote, or an ONNX file in it.
        backend: `auto` or `onnxruntime`.
        device: `auto`, `cpu` or `cuda`. `auto` takes what is there and says so in `description`.

    Raises:
        UsageError: the backend or device has no such name.
        ModelError: the model is missing, foreign, corrupt or of a newer version.
        MissingDependencyError: the backend is not installed.
        BackendError: the device that was asked for can't be used.
    """
    for option, value, known in (("backend", backend, BACKENDS), ("device", device, DEVICES)):
        if value not in known:
            raise UsageError(f"--{option} {value}: not one of {', '.join(known)}")
    model = find_model(path)
    from salema.runtime.ort_session import OrtSession  # noqa: PLC0415 - a backend is loaded when chosen

    return OrtSession(model, device)


def warn_untrained(spec: ModelSpec) -> None:
    """Says on stderr that the maps of seeded weights mean nothing."""
    if not spec.trained:
        print(f"note: {spec.weights} weights are untrained; the maps show that it runs, nothing more", file=sys.stderr)
