"""Which backends the GPU here can run; the tests marked `gpu` and `make gpu-check` pass over the others, with why."""

from __future__ import annotations

import ctypes

from salema.kernels.gpus import list_gpus
from salema.runtime.errors import MissingDependencyError, SalemaError
from salema.runtime.gpu.trt_library import KINDS, RTX_TARGETS, TENSORRT_RTX, load_library


def unavailable(backend: str) -> str | None:
    """Returns why a backend can't run on the first GPU; None if it can.

    Args:
        backend: `tensorrt`, `tensorrt-rtx`, or ONNX Runtime on the GPU: `onnxruntime`, `onnxruntime-tensorrt`.
    """
    try:
        gpu = list_gpus()[0]
        if backend not in KINDS:
            return _without_provider(backend)
        load_library(KINDS[backend])
    except SalemaError as error:
        return str(error)
    if backend == TENSORRT_RTX.backend and gpu.target not in RTX_TARGETS:
        return f"TensorRT-RTX knows {', '.join(RTX_TARGETS)}, and {gpu.name} is {gpu.target}"
    return None


def _without_provider(backend: str) -> str | None:
    import onnxruntime as ort  # noqa: PLC0415 - the other backends do without

    from salema.runtime.backends import ort_session  # noqa: PLC0415

    provider = ort_session.TENSORRT if backend == "onnxruntime-tensorrt" else ort_session.CUDA
    if provider not in ort.get_available_providers():
        return f"this ONNX Runtime {ort_session.VERSION} has no {provider}"
    if provider == ort_session.TENSORRT:
        ort_session.load_libraries(provider)
        try:
            ctypes.CDLL(ort_session.NVINFER)
        except OSError as error:
            raise MissingDependencyError(f"{error}; ONNX Runtime's TensorRT provider needs it") from error
    return None
