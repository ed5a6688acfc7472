"""What every number is recorded with: machine, versions, commit."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from salema.kernels.errors import BackendError
from salema.kernels.gpus import driver_cuda_version, list_gpus

_PACKAGES = (
    *("salema", "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx", "pycuda"),
    *("cuda-bindings", "numpy"),
)
_ASK_S = 20
_NVIDIA_SMI = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu,utilization.gpu"


def describe_environment() -> dict[str, Any]:
    """Returns what can be told of the machine; None for what can't."""
    return {
        "cpu": _cpu(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "gpus": _gpus(),
        "nvidia_smi": _ask("nvidia-smi", f"--query-gpu={_NVIDIA_SMI}", "--format=csv"),
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": _ask("git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty"),
    }


def _gpus() -> list[dict[str, Any]] | None:
    try:
        cuda = driver_cuda_version()
        return [
            {"name": gpu.name, "target": gpu.target, "bytes": gpu.memory_bytes, "cuda": cuda} for gpu in list_gpus()
        ]
    except BackendError:
        return None


def _cpu() -> str | None:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _ask(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
