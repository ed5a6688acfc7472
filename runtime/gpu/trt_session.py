"""Opens an engine of TensorRT or TensorRT-RTX from a model's folder, on a GPU, as a session."""

from __future__ import annotations

from contextlib import suppress

from salema.kernels.device.cuda import CudaDevice
from salema.kernels.device.launcher import CudaLauncher
from salema.kernels.errors import BackendError
from salema.runtime.gpu.device_session import DeviceSession
from salema.runtime.gpu.engine_files import read_engine
from salema.runtime.gpu.split_engine import SplitEngine
from salema.runtime.gpu.step_engine import StepEngine
from salema.runtime.gpu.trt_engine import TrtEngine
from salema.runtime.gpu.trt_library import Kind, load_library
from salema.runtime.model_folder import ModelFolder


def open_tensorrt(
    folder: ModelFolder, kind: Kind, device_index: int = 0, *, graphs: bool = True, state_scheme: str = "ping-pong"
) -> DeviceSession:
    """Loads a model's engine, or the engine that the user named.

    `state_scheme` is as in `DeviceSession`.

    Raises:
        ModelError: there is no engine, or it is for another version or GPU.
        MissingDependencyError: the library, PyCUDA or cuda-bindings is not installed.
        BackendError: there is no GPU, or the engine can't be loaded.
    """
    engine, device, launcher = open_engine(folder, kind, device_index)
    try:
        runs_on = f"{kind.title} {load_library(kind).version} on {device.name}"
        how = (engine, device, launcher, runs_on)
        return DeviceSession(*how, backend=kind.backend, graphs=graphs, state_scheme=state_scheme)
    except BaseException:
        with suppress(BackendError), device.active():
            engine.close()
        device.close()
        raise


def open_engine(folder: ModelFolder, kind: Kind, device_index: int = 0) -> tuple[StepEngine, CudaDevice, CudaLauncher]:
    """Loads a model's engine, whole or in two parts, without a session; the caller closes all, the device last."""
    read = [(path, *read_engine(path, kind)) for path in folder.engines(kind)]
    library = load_library(kind)
    device = CudaDevice(device_index)
    launcher = CudaLauncher(device)
    engines: list[TrtEngine] = []
    try:
        with device.active():
            for path, plan, info in read:
                engines.append(TrtEngine(path, plan, info, library, device))
            whole = engines[0] if len(engines) == 1 else SplitEngine(engines[0], engines[1], device, launcher)
    except BaseException:
        with suppress(BackendError), device.active():  # engines must be freed before the GPU's context
            for part in engines:
                part.close()
            launcher.close()
        device.close()
        raise
    return whole, device, launcher
