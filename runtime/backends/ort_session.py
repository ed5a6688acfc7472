"""ONNX Runtime, the last choice of `auto`. States stay OrtValues on the device from step to step.

Source: ONNX Runtime's Python API, "I/O Binding", "CUDA Execution Provider" and "TensorRT Execution Provider".
"""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salema.kernels.errors import installed
from salema.kernels.gpus import list_gpus
from salema.runtime.cpu import threads_for
from salema.runtime.errors import BackendError, ModelError, UsageError, reason
from salema.runtime.files.whole_files import make_folder, sha256_of
from salema.runtime.onnx_metadata import read_spec, tensors_differ
from salema.runtime.session import Session, States, step_error
from salema.runtime.spec import ModelSpec
from salema.runtime.wording import counted

with installed("pip install 'salema[cpu]' (or 'salema[gpu]' for CUDA)", "ONNX Runtime"):
    import onnxruntime as ort

VERSION = str(ort.__version__)
TENSORRT = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
_CACHE_FOLDER = "onnxruntime-tensorrt"
NVINFER = "libnvinfer.so.10"  # what the TensorRT provider is linked to, in every ONNX Runtime from 1.18 on
_QUIET = 3  # errors only: ONNX Runtime would write warnings about the graph and missing GPUs to stderr
_INSTALL_GPU = "install it with: pip uninstall -y onnxruntime && pip install 'salema[gpu]'"


def cuda_may_start() -> bool:
    """Returns whether this ONNX Runtime has the CUDA provider, and the machine has a GPU."""
    try:
        return CUDA in ort.get_available_providers() and bool(list_gpus())
    except BackendError:
        return False


class OrtSession(Session):
    """A `Session` over ONNX Runtime's CPU, CUDA or TensorRT provider."""

    def __init__(self, model: Path, device: str, *, with_tensorrt: bool = False, threads: int | None = None) -> None:
        """Loads an ONNX file on `auto`, `cpu`, `cuda` or `cuda:N`; `threads` is as in `open_session`.

        The TensorRT provider keeps its engines in a folder beside the model.

        Raises:
            UsageError: TensorRT on the CPU was asked for.
            ModelError: the file is corrupt, foreign or of a newer version.
            BackendError: CUDA or TensorRT was asked for, and is not active after loading.
        """
        if with_tensorrt and device == "cpu":
            raise UsageError("--backend onnxruntime-tensorrt --device cpu: TensorRT runs on NVIDIA GPUs only")
        self._index = int(device.partition(":")[2] or 0)
        asked = TENSORRT if with_tensorrt else CUDA if device.startswith("cuda") else None
        available = ort.get_available_providers()
        if asked and asked not in available:
            raise BackendError(f"this ONNX Runtime {VERSION} has no {asked}; {_INSTALL_GPU}")
        tries = [asked] if asked else [CUDA] if device == "auto" and CUDA in available else []
        tries += [CUDA] if with_tensorrt else []
        threads = threads_for(threads)
        self._session, why = _load(model, [(name, self._options(name, model)) for name in tries], threads)
        active = self._session.get_providers()[0]
        if asked and active != asked:
            raise BackendError(f"ONNX Runtime {VERSION} could not start {asked} ({why}); {_advice(asked)}")
        self.spec = _checked_spec(self._session, model)
        if self.spec.part != "model":
            raise ModelError(f"{model}: the {self.spec.part} of a split model; name its folder, with both parts in it")
        self._running: Any = None
        self.backend = "onnxruntime-tensorrt" if with_tensorrt else "onnxruntime"
        self.device = "cpu" if active == CPU else "cuda"
        self.runs_on = f"ONNX Runtime {VERSION} on {self.device}{' with TensorRT' * with_tensorrt}"
        self.runs_on += f", {counted(threads, 'thread')}" * (self.device == "cpu")
        if device == "auto" and not with_tensorrt:
            self.reason = _why(self.device, tried_cuda=bool(tries))

    def _options(self, provider: str, model: Path) -> dict[str, str]:
        if provider == CPU:
            return {}
        options = {"device_id": str(self._index)}
        if provider == TENSORRT:
            # The cache is needed because building takes minutes. The names in it hold no hash of the weights, so its
            # folder's name does. No trt_fp16_enable: with it ONNX Runtime gives up strong typing, and may round states
            # to FP16.
            folder = model.parent / _CACHE_FOLDER / sha256_of(model)[:16]
            if read_spec(model).precision != "fp16":
                os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # the provider has no option for it
            make_folder(folder)  # the provider makes one level only
            # "True", not "1": the provider takes True, true, False and false only, and starts with nothing else.
            return options | {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(folder)}
        return options | {"use_tf32": "0"}  # TF32 is on by default, and is not FP32: it has 10 bits of mantissa

    def step(
        self, frames: NDArray[np.uint8], states: States, mix: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], States]:
        """See `Session.step`."""
        self.check_open()
        binding = self._session.io_binding()
        inputs: dict[str, Any] = {"frame": self._upload(frames)}
        inputs |= {f"{state.name}_in": value for state, value in zip(self.spec.states, states, strict=True)}
        if self.spec.coefficient is not None:
            inputs["mix"] = self._upload(mix)
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("saliency", "cpu")
        for state in self.spec.states:
            binding.bind_output(f"{state.name}_out", self.device, self._index)
        self._running = ort.RunOptions()
        try:
            self._session.run_with_iobinding(binding, self._running)
        except Exception as error:
            if self._running.terminate:
                raise BackendError("the step was aborted") from error
            raise step_error(f"ONNX Runtime {VERSION}", error, reason(error)) from error
        saliency, *after = binding.get_outputs()
        return saliency.numpy()[:, 0].copy(), tuple(after)  # numpy() is a view of ONNX Runtime's memory

    def from_host(self, arrays: Mapping[str, NDArray[np.float32]]) -> States:
        """See `Session.from_host`."""
        self.check_open()
        values = []
        for state in self.spec.states:
            array = np.ascontiguousarray(arrays[state.name], np.float32)
            # Its own memory: on the CPU, ortvalue_from_numpy uses the array's, which is freed with the array.
            value = ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), np.float32, self.device, self._index)
            value.update_inplace(array)
            values.append(value)
        return tuple(values)

    def values_of(self, state: Any) -> NDArray[np.float32]:
        """See `Session.values_of`."""
        values: NDArray[np.float32] = state.numpy()
        return values

    def abort(self) -> None:
        """See `Session.abort`."""
        if self._running is not None:
            self._running.terminate = True

    def close(self) -> None:
        """See `Session.close`."""
        super().close()
        self._session = None

    def _upload(self, array: NDArray[Any]) -> Any:
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.device, self._index)


def _load(model: Path, accelerators: list[tuple[str, dict[str, str]]], threads: int) -> tuple[Any, str]:
    """Returns a session on the first provider that starts, else on the CPU; and why the first one did not start."""
    ort.set_default_logger_severity(_QUIET)
    why = "its libraries don't load"  # then ONNX Runtime takes the next provider, and only logs it
    if accelerators:
        load_libraries(accelerators[0][0])
        try:
            return _new_session(model, [*accelerators, (CPU, {})], threads), why
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's own classes have no common public base
            why = reason(error)  # if the model is the cause, the CPU provider fails too
    try:
        return _new_session(model, [(CPU, {})], threads), why
    except Exception as error:
        with model.open("rb"):  # one that can't be read says why by itself
            pass
        newer = "IR version" in str(error) or "opset" in str(error).lower()
        advice = "upgrade it with: pip install -U onnxruntime" if newer else "export it again"
        raise ModelError(f"{model}: ONNX Runtime {VERSION} can't load it ({reason(error)}); {advice}") from error


def _advice(provider: str) -> str:
    if provider == TENSORRT:
        try:
            ctypes.CDLL(NVINFER)
        except OSError:
            return f"it is linked to TensorRT 10, and {NVINFER} can't be loaded; get it with: pip install 'tensorrt<11'"
    return "salema-doctor shows what is missing"


def load_libraries(provider: str) -> None:
    """Loads what a GPU provider is linked to, where it comes in wheels: the provider does not look there."""
    if provider == TENSORRT:
        with suppress(ImportError, OSError):  # loads the libraries of TensorRT's wheel
            importlib.import_module("tensorrt_libs")
    if hasattr(ort, "preload_dlls"):  # since 1.21: finds CUDA and cuDNN in wheels
        with redirect_stdout(StringIO()):  # it prints which libraries it does not find
            ort.preload_dlls()


def load_part(model: Path, threads: int) -> tuple[Any, ModelSpec]:
    """Loads one part of a split model on the CPU; returns ONNX Runtime's session and the part's record.

    Raises:
        ModelError: the file is corrupt, foreign or of a newer version.
    """
    session, _ = _load(model, [], threads)
    return session, _checked_spec(session, model)


def _new_session(model: Path, providers: list[tuple[str, dict[str, str]]], threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait busily take the cores from decoding, encoding and other programs. Two processes side by side
    # then take 17.8 ms a step, else 10.0; one alone 6.4 and 6.7 (nano, 1.32, 2 cores of a Zen 5, tried by hand).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _QUIET
    # ONNX Runtime's own fallback prints to stdout and takes other providers.
    return ort.InferenceSession(str(model), options, providers=providers, enable_fallback=0)


def _checked_spec(session: Any, model: Path) -> ModelSpec:
    spec = read_spec(model)
    tensors = [*session.get_inputs(), *session.get_outputs()]
    shapes = {tensor.name: tuple(n if isinstance(n, int) else None for n in tensor.shape) for tensor in tensors}
    if shapes != spec.tensor_shapes:
        raise tensors_differ(model, shapes)
    return spec


def _why(device: str, *, tried_cuda: bool) -> str:
    if device == "cuda":
        return "CUDA is active"
    return "CUDA did not start" if tried_cuda else "no CUDA provider installed"
