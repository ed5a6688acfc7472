"""The facts that every measurement is recorded with: machine, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from salema.kernels.errors import BackendError
from salema.kernels.gpus import driver_cuda_version, list_gpus
from salema.runtime.cpu import cpu_fact, cpu_features

_PACKAGES = (
    *("salema", "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "ncnn", "tensorrt", "tensorrt-rtx"),
    *("pycuda", "cuda-bindings", "numpy", "opencv-python"),
)
_ASK_S = 20
_NVIDIA_SMI = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu,utilization.gpu"


def describe_environment() -> dict[str, Any]:
    """Returns facts about the machine; None for those that can't be read here."""
    return {
        "cpu": cpu_fact("model name"),
        "cpu_family_and_model": f"{cpu_fact('cpu family')}/{cpu_fact('model')}" if cpu_fact("model") else None,
        "cpu_features": cpu_features(),
        "cores": os.cpu_count(),
        "cpu_mhz": cpu_fact("cpu MHz"),
        "governor": _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "board": (_read(Path("/proc/device-tree/model")) or "").strip("\0") or None,
        "power_mode": _ask("nvpmodel", "-q"),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "gpus": _gpus(),
        "nvidia_smi": _ask("nvidia-smi", f"--query-gpu={_NVIDIA_SMI}", "--format=csv"),
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": os.environ.get("SALEMA_COMMIT") or _commit(),
    }


def cpu_in_words(environment: Mapping[str, Any], *, short: bool = False) -> str:
    """Returns the CPU: its name, family and model, and, unless `short`, what decides how fast a network runs on it."""
    family, features = environment["cpu_family_and_model"], environment["cpu_features"]
    known = [family if family != "None/None" else None, None if short else " ".join(features or [])]  # once for Arm
    inside = "; ".join(filter(None, known))
    return f"{environment['cpu'] or 'unknown CPU'}{f' ({inside})' if inside else ''}"


def power_mode_in_words(environment: Mapping[str, Any]) -> str:
    """Returns a Jetson's power mode, such as `15W`, which decides its clocks; empty elsewhere."""
    return str(environment.get("power_mode") or "").partition("\n")[0].rpartition(": ")[2]


def machine_in_words(environment: Mapping[str, Any]) -> str:
    """Returns what tells one machine, as it is set up, from another."""
    mode, gpus = power_mode_in_words(environment), environment["gpus"] or []
    facts = [
        *(cpu_in_words(environment), f"{environment['cores']} cores", environment.get("board")),
        *(mode and f"power mode {mode}", *(gpu["name"] for gpu in gpus)),
    ]
    return ", ".join(filter(None, facts))


def _commit() -> str | None:
    """Returns the commit of our sources. A copy without .git has none, so SALEMA_COMMIT is asked first."""
    return _ask("git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty")


def _gpus() -> list[dict[str, Any]] | None:
    try:
        cuda = driver_cuda_version()
        return [
            {"name": gpu.name, "target": gpu.target, "bytes": gpu.memory_bytes, "cuda": cuda} for gpu in list_gpus()
        ]
    except BackendError:
        return None


def _read(file: Path) -> str | None:
    try:
        return file.read_text("utf-8").strip()
    except OSError:
        return None


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
