"""What people would use instead: PyTorch in several forms, and each engine on the naive export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from salema.runtime.errors import BackendError, UsageError
from salema.runtime.spec import ModelSpec

if TYPE_CHECKING:
    from salema.benchmarks.peers.network import Network

ON_GPU_ONLY = ("pytorch-fp16", "pytorch-cuda-graph", "pytorch-fp16-cuda-graph", "tensorrt", "tensorrt-rtx")
PEERS = {
    "pytorch": "eager, float32: the published way",
    "pytorch-compile": "torch.compile, float32",
    "pytorch-channels-last": "eager, float32, channels-last",
    "pytorch-bf16": "eager, bfloat16, channels-last",
    "pytorch-fp16": "eager, float16, channels-last (GPU)",
    "pytorch-cuda-graph": "float32 recorded as a CUDA graph (GPU)",
    "pytorch-fp16-cuda-graph": "float16, channels-last, recorded as a CUDA graph (GPU)",
    "onnxruntime": "on the naive export, states through the host",
    "openvino": "on the naive export, in the precision that it chooses itself",
    "tensorrt": "engine of the naive export, states through the host (GPU)",
    "tensorrt-rtx": "the same with TensorRT-RTX (GPU)",
}


class Runner(Protocol):
    """Anything that turns the frames of a video into maps, one after the other."""

    def reset(self) -> None:
        """Empties the memory for a new video."""

    def infer(self, frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Takes frames `[N, H, W, 3]`; returns maps `[N, H, W]`."""

    def close(self) -> None:
        """Frees its memory."""


def open_peer(name: str, network: Network, batch: int, device: str, folder: Path) -> tuple[Runner, str]:
    """Opens one of `PEERS` on a device, `cpu` or `cuda:N`; returns it, and the precision that it runs in.

    The naive export goes into a folder.

    Raises:
        UsageError: there is no such peer, or it does not run on this device.
        MissingDependencyError: its library is not installed.
        BackendError: it does not start.
    """
    if name not in PEERS:
        raise UsageError(f"--compare {name}: not one of {', '.join(PEERS)}")
    if name in ON_GPU_ONLY and device == "cpu":
        raise UsageError(f"--compare {name}: runs on NVIDIA GPUs only, and the device is cpu; leave it out")
    if name == "openvino" and device != "cpu":
        raise UsageError(
            "--compare openvino: runs on the CPU, and the rest on a GPU; give --device cpu, or leave it out"
        )
    if name.startswith("pytorch"):
        return _open_torch(name, network, batch, device)
    model = naive_model(network, batch, folder)
    spec = network.spec_for(batch)
    if name == "onnxruntime":
        return HostStates(spec, batch, _onnxruntime(model, device, spec)), "fp32"
    if name == "openvino":
        call, precision = _openvino(model)
        return HostStates(spec, batch, call), precision
    return _open_tensorrt(name, model.parent, spec, batch, device), "fp32"


def naive_model(network: Network, batch: int, folder: Path) -> Path:
    """Returns the naive export of a network in a scratch folder, made on the first call."""
    model = folder / f"naive-{batch}" / "model.onnx"
    if not model.is_file():
        model.parent.mkdir(parents=True)
        network.save_onnx(model, batch)
    return model


class HostStates:
    """A peer that takes and returns arrays; its states pass through the host, as in code written without care."""

    def __init__(
        self,
        spec: ModelSpec,
        batch: int,
        call: Callable[[dict[str, Any]], Mapping[str, NDArray[np.float32]]],
        free: Callable[[], object] = lambda: None,
    ) -> None:
        """Takes `call`, from arrays by input name to arrays by output name; and `free`, called once at the end."""
        self._spec, self._batch, self._call, self._free = spec, batch, call, free
        self.reset()

    def reset(self) -> None:
        """See `Runner.reset`."""
        shapes = {f"{state.name}_in": (self._batch, *state.shape_chw) for state in self._spec.states}
        self._states = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        self._first = True

    def infer(self, frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """See `Runner.infer`."""
        inputs = {"frame": frames, **self._states}
        if self._spec.coefficient is not None:
            inputs["mix"] = np.full(self._batch, 1 if self._first else self._spec.coefficient, np.float32)
        outputs = self._call(inputs)
        self._states = {f"{state.name}_in": outputs[f"{state.name}_out"] for state in self._spec.states}
        self._first = False
        return outputs["saliency"][:, 0]

    def close(self) -> None:
        """See `Runner.close`."""
        self._free()


def _open_torch(name: str, network: Network, batch: int, device: str) -> tuple[Runner, str]:
    import torch  # noqa: PLC0415

    from salema.benchmarks.peers.torch_peers import TorchGraphStream, TorchOptions, TorchStream  # noqa: PLC0415

    if device != "cpu" and not torch.cuda.is_available():
        raise BackendError(f"--compare {name}: this PyTorch {torch.__version__} has no CUDA here; give --device cpu")
    precision = next((kind for kind in ("bf16", "fp16") if kind in name), "fp32")
    options = TorchOptions(
        precision,
        channels_last=precision != "fp32" or name == "pytorch-channels-last",
        compiled=name == "pytorch-compile",
    )
    made = network.architecture, network.checkpoint.weights, network.spec_for(batch), options, device, batch
    if name.endswith("cuda-graph"):
        recorded = TorchGraphStream(*made)
        recorded.record()
        return recorded, precision
    return TorchStream(*made), precision


def _onnxruntime(model: Path, device: str, spec: ModelSpec) -> Callable[[dict[str, Any]], dict[str, Any]]:
    import onnxruntime as ort  # noqa: PLC0415

    from salema.runtime.backends.ort_session import CUDA  # noqa: PLC0415

    wanted = "CPUExecutionProvider" if device == "cpu" else CUDA
    if wanted not in ort.get_available_providers():
        raise BackendError(f"--compare onnxruntime: this ONNX Runtime {ort.__version__} has no {wanted}")
    options = {} if device == "cpu" else {"device_id": device.partition(":")[2] or "0"}
    session = ort.InferenceSession(str(model), providers=[(wanted, options)], enable_fallback=0)
    names = list(spec.output_names)
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def _openvino(model: Path) -> tuple[Callable[[dict[str, Any]], dict[str, Any]], str]:
    """OpenVINO with its defaults: on a CPU with BF16 it computes in that."""
    from salema.runtime.backends.openvino_session import ov  # noqa: PLC0415 - imported there without its telemetry

    compiled = ov.Core().compile_model(str(model), "CPU")
    kinds = {"f32": "fp32", "f16": "fp16"}
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()

    def call(inputs: dict[str, Any]) -> dict[str, Any]:
        return {output.any_name: value.copy() for output, value in compiled(inputs).items()}

    return call, kinds.get(precision, precision)


def _open_tensorrt(name: str, folder: Path, spec: ModelSpec, batch: int, device: str) -> Runner:
    from salema.export.engine.to_engine import build_chosen  # noqa: PLC0415
    from salema.export.options import EngineOptions  # noqa: PLC0415
    from salema.runtime.gpu.trt_library import KINDS  # noqa: PLC0415
    from salema.runtime.gpu.trt_session import open_tensorrt  # noqa: PLC0415
    from salema.runtime.model_folder import look_up  # noqa: PLC0415

    kind = KINDS[name]
    if not (folder / kind.engine_name("model")).is_file():
        build_chosen(folder, name, EngineOptions(), lambda _: None, required=True)
    session = open_tensorrt(look_up(folder), kind, int(device.partition(":")[2] or 0), graphs=False)

    def call(inputs: dict[str, Any]) -> dict[str, Any]:
        states = {state.name: inputs[f"{state.name}_in"] for state in spec.states}
        mix = inputs.get("mix", np.ones(batch, np.float32))
        maps, after = session.step(inputs["frame"], session.from_host(states), mix)
        outputs = {f"{state}_out": array for state, array in session.to_host(after).items()}
        return {"saliency": maps[:, np.newaxis], **outputs}

    return HostStates(spec, batch, call, session.close)
