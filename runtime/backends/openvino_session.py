"""OpenVINO on the CPU. States stay OpenVINO's tensors from step to step.

Source: OpenVINO's documentation, "CPU Device" (inference precision), "Performance Hints" and the Python API's `Tensor`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salema.kernels.errors import installed
from salema.runtime.backends.openvino_graph import transpose_upsampling
from salema.runtime.cpu import fill_all_cores, threads_for
from salema.runtime.errors import BackendError, ModelError
from salema.runtime.onnx_metadata import read_spec, tensors_differ
from salema.runtime.session import Session, States, step_error
from salema.runtime.wording import counted

_TELEMETRY = "openvino_telemetry"


def _import_openvino() -> Any:
    """Imports OpenVINO without its telemetry.

    On import, `openvino.tools.ovc` (2023.0 to 2026.4) reports to Google Analytics and keeps an identity in `~/intel`.
    No option or variable turns it off; but without the package that does this, OpenVINO uses a stub.
    """
    hidden = _TELEMETRY not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # makes `import` raise
    try:
        return importlib.import_module("openvino")
    finally:
        if hidden:
            del sys.modules[_TELEMETRY]


with installed("pip install 'salema[openvino]'", "OpenVINO"):
    ov = _import_openvino()

VERSION = str(ov.__version__).partition("-")[0]
_PRECISION = {"openvino": ("f32", "float32"), "openvino-bf16": ("bf16", "bfloat16")}
_COMPUTES_IN = {"openvino": "fp32", "openvino-bf16": "bf16"}


class OpenVinoSession(Session):
    """A `Session` over OpenVINO's CPU plugin.

    `openvino` computes in float32, whether the model's floats are float32 or float16; by default the plugin would take
    bfloat16 if the CPU has it. The integers of an INT8 graph stay integers. `openvino-bf16` computes in bfloat16. Only
    the layers between an output and the convolutions before it, and with them the states' recurrence, stay in float32:
    OpenVINO does that (`Graph::EnforceInferencePrecision`).
    """

    def __init__(self, model: Path, backend: str, threads: int | None = None) -> None:
        """Loads the ONNX file of a whole step; `backend` is `openvino` or `openvino-bf16`.

        `threads` is as in `open_session`.

        Raises:
            BackendError: `openvino-bf16` was asked for, and the CPU has no bfloat16.
            ModelError: the file is corrupt, foreign, of a newer version, or a part of a split model.
        """
        precision, shown = _PRECISION[backend]
        core = ov.Core()
        able = capabilities(core)
        if precision == "bf16" and "BF16" not in able:
            raise BackendError(
                f"--backend {backend}: this CPU has no bfloat16 (OpenVINO lists {', '.join(able)}); take openvino"
            )
        self.spec = read_spec(model)
        if self.spec.part != "model":
            raise ModelError(f"{model}: the {self.spec.part} of a split model; export it again without --split")
        threads = threads_for(threads)
        self._request: Any = self._load(core, model, precision, threads).create_infer_request()
        self.backend, self.device = backend, "cpu"
        self.runs_on = f"OpenVINO {VERSION} on cpu in {shown}, {counted(threads, 'thread')}"

    @property
    def computes_in(self) -> str:
        """See `Session.computes_in`."""
        return self.spec.precision if self.spec.precision == "int8" else _COMPUTES_IN[self.backend]

    def _load(self, core: Any, model: Path, precision: str, threads: int) -> Any:
        try:
            network = core.read_model(str(model))
            ports = [*zip(self.spec.input_names, network.inputs, strict=True)]
            ports += zip(self.spec.output_names, network.outputs, strict=True)
            shapes = {name: _shape(port) for name, port in ports if name in port.names}
        except ValueError:
            shapes = {}
        except RuntimeError as error:
            raise _unloadable(model, error) from error
        if shapes != self.spec.tensor_shapes:
            raise tensors_differ(model, {port.get_any_name(): _shape(port) for port in network.inputs})
        transpose_upsampling(network, importlib.import_module("openvino.opset13"))
        hints = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            # 2026.4 pins each session's threads to the first cores: two with a thread each shared one of two cores,
            # and gave 74 frames a second in place of 147. One with all cores gains by it.
            "ENABLE_CPU_PINNING": fill_all_cores(threads),
        }
        try:
            return core.compile_model(network, "CPU", hints)
        except RuntimeError as error:
            raise _unloadable(model, error) from error

    def step(
        self, frames: NDArray[np.uint8], states: States, mix: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], States]:
        """See `Session.step`."""
        self.check_open()
        inputs = [_tensor(frames), *states]
        if self.spec.coefficient is not None:
            inputs.append(_tensor(mix))
        for index, tensor in enumerate(inputs):
            self._request.set_input_tensor(index, tensor)
        # Each step gets its own tensors: with the request's own, OpenVINO would overwrite them in the next step.
        count = len(frames)
        saliency = ov.Tensor(ov.Type.f32, [count, 1, self.spec.height, self.spec.width])
        after = tuple(ov.Tensor(ov.Type.f32, [count, *state.shape_chw]) for state in self.spec.states)
        for index, tensor in enumerate((saliency, *after)):
            self._request.set_output_tensor(index, tensor)
        try:
            self._request.infer()
        except RuntimeError as error:
            raise step_error(f"OpenVINO {VERSION}", error, _last_line(error)) from error
        return saliency.data[:, 0].copy(), after  # data is a view of OpenVINO's memory

    def from_host(self, arrays: Mapping[str, NDArray[np.float32]]) -> States:
        """See `Session.from_host`."""
        self.check_open()
        return tuple(_tensor(np.asarray(arrays[state.name], np.float32)) for state in self.spec.states)

    def values_of(self, state: Any) -> NDArray[np.float32]:
        """See `Session.values_of`."""
        values: NDArray[np.float32] = state.data
        return values

    def close(self) -> None:
        """See `Session.close`."""
        super().close()
        self._request = None


def capabilities(core: Any) -> list[str]:
    """Returns the types that this CPU computes in, as OpenVINO lists them: FP32, INT8, perhaps BF16, and so on."""
    names = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [str(name) for name in names if name != "EXPORT_IMPORT"]


def _tensor(array: NDArray[Any]) -> Any:
    return ov.Tensor(np.ascontiguousarray(array))  # a copy


def _shape(port: Any) -> tuple[int | None, ...]:
    return tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)


def _unloadable(model: Path, error: RuntimeError) -> ModelError:
    return ModelError(f"{model}: OpenVINO {VERSION} can't load it ({_last_line(error)}); export it again")


def _last_line(error: RuntimeError) -> str:
    """Returns the last line of OpenVINO's message; earlier lines name places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
