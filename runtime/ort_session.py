"""ONNX Runtime: the embedded default. States stay OrtValues on the device from step to step."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from salema.runtime.errors import BackendError, MissingDependencyError, ModelError, UsageError, reason
from salema.runtime.spec import METADATA_KEY, ModelSpec

# Version 1.32 looks up Microsoft's servers and writes to the user's cache; after the import it is too late to ask.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
try:
    import onnxruntime as ort
except ImportError as error:
    raise MissingDependencyError(
        f"ONNX Runtime can't be imported ({reason(error)}); install it with: pip install 'salema[cpu]'"
        " (or 'salema[gpu]' for CUDA)"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from typing_extensions import Self

    from salema.runtime.session import States

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
_QUIET = 3  # errors only: ONNX Runtime writes warnings about the graph and missing GPUs straight to stderr
_INSTALL_GPU = "install it with: pip uninstall -y onnxruntime && pip install 'salema[gpu]'"


class OrtSession:
    """A `Session` over ONNX Runtime's CPU or CUDA provider."""

    def __init__(self, model: Path, device: str) -> None:
        """Loads the model; `device` is `auto`, `cpu` or `cuda`.

        Raises:
            ModelError: the file is corrupt, foreign or of a newer version.
            BackendError: CUDA was asked for and is not really active.
        """
        wants_cuda = device == "cuda" or (device == "auto" and CUDA in ort.get_available_providers())
        if wants_cuda and CUDA not in ort.get_available_providers():
            raise BackendError(f"--device cuda: this ONNX Runtime has no CUDA provider; {_INSTALL_GPU}")
        self._session = _load(model, [CUDA, CPU] if wants_cuda else [CPU])
        # ONNX Runtime falls back to the CPU with no more than a log line when CUDA's libraries don't load.
        self._device = "cuda" if self._session.get_providers()[0] == CUDA else "cpu"
        if device == "cuda" and self._device == "cpu":
            raise BackendError(
                "--device cuda: ONNX Runtime could not start CUDA; check nvidia-smi, CUDA 12 and cuDNN 9"
            )
        self.spec = _read_spec(self._session, model)
        self.description = f"ONNX Runtime {ort.__version__} on {self._device}"
        if device == "auto":
            self.description += f" (auto: {_why(self._device, tried_cuda=wants_cuda)})"

    def step(
        self, frames: NDArray[np.uint8], states: States, mix: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], States]:
        """See `Session.step`."""
        if self._session is None:
            raise UsageError("the model is closed; load it again")
        binding = self._session.io_binding()
        inputs: dict[str, Any] = {"frame": self._upload(frames)}
        inputs |= {f"{state.name}_in": value for state, value in zip(self.spec.states, states, strict=True)}
        if self.spec.coefficient is not None:
            inputs["mix"] = self._upload(mix)
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("saliency", "cpu")
        for state in self.spec.states:
            binding.bind_output(f"{state.name}_out", self._device)
        self._session.run_with_iobinding(binding)
        saliency, *after = binding.get_outputs()
        return saliency.numpy()[:, 0].copy(), tuple(after)  # numpy() is a view of ONNX Runtime's memory

    def from_host(self, arrays: Mapping[str, NDArray[np.float32]]) -> States:
        """See `Session.from_host`."""
        values = []
        for state in self.spec.states:
            array = np.ascontiguousarray(arrays[state.name], np.float32)
            # Memory of its own: what ortvalue_from_numpy gives on the CPU dangles once the array is gone.
            value = ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), np.float32, self._device, 0)
            value.update_inplace(array)
            values.append(value)
        return tuple(values)

    def to_host(self, states: States) -> dict[str, NDArray[np.float32]]:
        """See `Session.to_host`."""
        return {state.name: value.numpy().copy() for state, value in zip(self.spec.states, states, strict=True)}

    def close(self) -> None:
        """See `Session.close`."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _upload(self, array: NDArray[Any]) -> Any:
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)


def _load(model: Path, providers: list[str]) -> Any:
    ort.set_default_logger_severity(_QUIET)
    options = ort.SessionOptions()
    options.log_severity_level = _QUIET
    try:
        return ort.InferenceSession(str(model), options, providers=providers)
    except Exception as error:  # ONNX Runtime's own classes have no common public base
        newer = "IR version" in str(error) or "opset" in str(error).lower()
        advice = "upgrade it with: pip install -U onnxruntime" if newer else "export it again"
        raise ModelError(
            f"{model}: ONNX Runtime {ort.__version__} can't load it ({reason(error)}); {advice}"
        ) from error


def _read_spec(session: Any, model: Path) -> ModelSpec:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ModelError(
            f"{model}: an ONNX model, but not one that salema-export wrote; export your checkpoint with it"
        )
    spec = ModelSpec.from_json(text, str(model))
    tensors = [*session.get_inputs(), *session.get_outputs()]
    found = {tensor.name: tuple(n if isinstance(n, int) else None for n in tensor.shape) for tensor in tensors}
    if found != spec.tensor_shapes:
        raise ModelError(f"{model}: its inputs and outputs are not those of its metadata; export it again")
    return spec


def _why(device: str, *, tried_cuda: bool) -> str:
    if device == "cuda":
        return "CUDA is active"
    return "CUDA did not start" if tried_cuda else "no CUDA provider installed"
