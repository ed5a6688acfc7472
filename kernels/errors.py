"""The base of our errors, and the fixes for messages of CUDA and TensorRT."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


class SalemaError(Exception):
    """Base of all our errors; `exit_code` is the command's exit code."""

    exit_code = 1


class BackendError(SalemaError, RuntimeError):
    """A backend or device can't be used."""


class MissingDependencyError(SalemaError, ImportError):
    """An optional library is needed and not installed."""


class ArgumentError(SalemaError, ValueError):
    """An argument of a kernel is wrong; nothing was launched."""


# The first pattern that matches decides. The messages are those of CUDA 11 to 13 and TensorRT 10 and 11.
_FIXES = {
    r"could not find any implementation|insufficient workspace": (
        "the builder found no kernel that fits its scratch memory; give a larger --workspace, or leave it out"
    ),
    r"base shader|ktm assertion": "TensorRT lacks a kernel at this level; use --optimization-level 3 or more",
    r"out.?of.?memory|insufficient memory|memory_allocation|bad.?alloc|cudaerror 2\b": (
        "there is too little free memory on the GPU or the machine; close other programs, or export the model with a"
        " smaller --imgsz or --batch (while building an engine, a smaller --workspace may do)"
    ),
    (
        r"driver version is insufficient|insufficient.?driver|cudaerror 35|error: 35\b|libcuda\.so"
        r"|unsupported display driver|installed cuda driver|forward compatibility|unsupported.*ptx|ptx was compiled"
    ): "no NVIDIA driver that is new enough was found; this needs an NVIDIA GPU and its driver: see nvidia-smi",
    r"no cuda-capable device|no_device|no device|cudaerror 100\b|error: 100\b": (
        "no NVIDIA GPU is visible; see nvidia-smi and the variable CUDA_VISIBLE_DEVICES"
    ),
    r"unknown error|not yet initialized|system_driver_mismatch|cuda error (803|804|999)\b": (
        "the NVIDIA driver does not answer, or its parts are of different versions; reboot, or reinstall it"
    ),
    r"busy or unavailable": "the GPU is in use by another program alone; see nvidia-smi",
    r"invalid device ordinal|invalid_device": "there is no GPU of that number; list them with: nvidia-smi -L",
    r"no kernel image|no_binary_for_gpu": "this library holds no code for this GPU; install a version that knows it",
    r"builder_resource": "TensorRT is installed in part, or two versions are mixed; reinstall it",
    r"compatible with this version|version tag|serialization assertion|magic ?tag|incompatible device|plan file": (
        "the engine was built by another version or for another GPU, or is damaged; build it again here with:"
        " salema-export --from DIR --engine tensorrt (or tensorrt-rtx)"
    ),
    r"illegal.?address|illegal memory|launch.?fail|misaligned|device-side assert": (
        "the GPU stopped with a fault, and this process can't use it any more; run again, and report it if it repeats"
    ),
    r"stream.*captur|captur.*(stream|graph|invalidat|unsupported)|during capture|capture sequence": (
        "recording a CUDA graph failed; run with --no-cuda-graph, and report it"
    ),
    r"unsupported_?op|no importer registered|unsupported_?node|plugin not found": (
        "the library lacks an operation of the model; upgrade it, and export the model again"
    ),
    r"failed to parse|protobuf|invalid_(graph|value|node)|modelimporter": (
        "the ONNX file is damaged, or newer than the library; export it again, or upgrade the library"
    ),
}


def explain(message: str) -> str:
    """Returns what to do about a message of CUDA or TensorRT, and the message itself in brackets."""
    brief = " ".join(message.split())[:300]
    for pattern, fix in _FIXES.items():
        if re.search(pattern, message, re.IGNORECASE):
            return f"{fix} [{brief}]"
    return f"{brief}; salema-doctor shows what works here"


def reason(error: BaseException) -> str:
    """Returns the shortest useful text of a foreign error: its system message, else its first line."""
    message = getattr(error, "strerror", None)  # OSError has it, and FFmpeg's errors
    if message:
        return str(message)
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def installed(how: str, what: str = "") -> Iterator[None]:
    """Says how to install what an import in the `with` block lacks.

    Args:
        how: the command that installs it.
        what: the library's name for people; empty where Python's own message is clear enough.

    Raises:
        MissingDependencyError: an import failed.
    """
    try:
        yield
    except MissingDependencyError:  # it says so already
        raise
    except ImportError as error:
        why = f"{what} can't be imported ({reason(error)})" if what else reason(error)
        raise MissingDependencyError(f"{why}; install it with: {how}") from error
