"""`salema-doctor`'s probes of the machine: driver, GPUs, CUDA from Python, ncnn, video, Jetson.

A probe returns its findings. If it raises, hangs or crashes, `run_apart` makes that a finding.
"""

from __future__ import annotations

import ctypes
import importlib
import platform
import re
import shutil
import struct
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from salema.kernels.gpus import Gpu, driver_cuda_version, list_gpus
from salema.runtime.doctor.findings import BROKEN, MISSING, WORKS, Finding, ask, unusable
from salema.runtime.errors import BackendError, MissingDependencyError, reason

if TYPE_CHECKING:
    from salema.kernels.device.cuda import CudaDevice

DRIVER, PYCUDA, CUDA_BINDINGS, GPU_MEMORY = "NVIDIA driver", "PyCUDA", "cuda-bindings", "GPU memory"
KERNELS = "CUDA kernels"
NCNN = "ncnn"
# A 3x3 convolution of ones. Its weights are ncnn's flag, the weights and the bias.
_TINY_PARAM = "7767517\n2 2\nInput x 0 1 x\nConvolution y 1 1 x y 0=1 1=3 5=1 6=9\n"
_TINY_BIN = struct.pack("<I10f", 0, *[1] * 9, 0)
_INSTALL_CUDA = "pip install 'salema[cuda]' (PyCUDA is compiled, and needs the CUDA toolkit for that)"
_LIBRARIES = {"NumPy": ("numpy", "numpy"), "OpenCV": ("cv2", "opencv-python"), "PyAV": ("av", "av")}
_BINDINGS = {PYCUDA: ("pycuda.driver", "pycuda"), CUDA_BINDINGS: ("cuda.bindings.driver", "cuda-bindings")}


def probe_system() -> list[Finding]:
    """Checks the machine, Python, this package and the packages that it always needs."""
    return [
        Finding("platform", WORKS, platform.platform()),
        Finding("Python", WORKS, platform.python_version()),
        _import("salema", "salema.runtime", "salema", "pip install salema"),
        *(_import(title, *where, f"pip install {where[1]}") for title, where in _LIBRARIES.items()),
    ]


def probe_gpus() -> list[Finding]:
    """Checks the NVIDIA driver, the GPUs and the CUDA toolkit."""
    no_gpu = find_no_gpu()
    if no_gpu:
        return [no_gpu]
    return [
        Finding(DRIVER, WORKS, f"{_driver_release()}serves CUDA up to {driver_cuda_version()}"),
        *(_describe(gpu) for gpu in list_gpus()),
        _cuda_toolkit(),
    ]


def probe_cuda() -> list[Finding]:
    """Imports PyCUDA and cuda-bindings, compiles a kernel, and if there is a GPU, copies bytes to it and back."""
    findings = [_import(title, *where, _INSTALL_CUDA) for title, where in _BINDINGS.items()]
    no_gpu = find_no_gpu()
    findings.append(_compile("sm89" if no_gpu else list_gpus()[0].target))
    if no_gpu or any(finding.state != WORKS for finding in findings):
        return findings
    from salema.kernels.device.cuda import CudaDevice  # noqa: PLC0415 - it needs NumPy, which the other probes do without

    device = CudaDevice(0)
    try:
        _copy_there_and_back(device)
    except BackendError as error:
        return [*findings, unusable(GPU_MEMORY, error)]
    finally:
        device.close()
    return [*findings, Finding(GPU_MEMORY, WORKS, f"bytes went to {device.name} and came back")]


def probe_ncnn() -> list[Finding]:
    """Runs a tiny network, loaded as models are."""
    try:
        from salema.runtime.backends.ncnn_session import load_net  # noqa: PLC0415 - it may be missing
    except MissingDependencyError as error:
        return [unusable(NCNN, error)]
    import ncnn  # noqa: PLC0415 - after the import above, whose error says how to install it
    import numpy as np  # noqa: PLC0415

    extractor = load_net(_TINY_PARAM, [_TINY_BIN]).create_extractor()
    extractor.input("x", ncnn.Mat(np.arange(9, dtype=np.float32).reshape(1, 3, 3)).clone())
    _, output = extractor.extract("y")
    value = np.array(output).tolist()
    if value != [[[sum(range(9))]]]:
        advice = "pip install --force-reinstall ncnn"
        return [Finding(NCNN, BROKEN, f"{ncnn.__version__}: a tiny model gave {value}", advice)]
    return [Finding(NCNN, WORKS, f"{ncnn.__version__}, a tiny model ran")]


def probe_video() -> list[Finding]:
    """Checks FFmpeg through PyAV, GStreamer, and NVIDIA's decoders."""
    import av  # noqa: PLC0415 - `probe_system` reports if it can't be imported

    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    x264 = "libx264" if "libx264" in av.codecs_available else None
    return [
        Finding("FFmpeg", WORKS, f"libavcodec {codec} in PyAV {av.__version__}"),
        _works_if("H.264 encoder", x264, "this PyAV has no libx264", "pip install --force-reinstall av"),
        _gstreamer(),
        _nvv4l2decoder(),
        _nvdec(sorted(name for name in av.codecs_available if name.endswith("_cuvid"))),
    ]


def probe_jetson(
    release: Path = Path("/etc/nv_tegra_release"), model: Path = Path("/proc/device-tree/model")
) -> list[Finding] | None:
    """Checks board, L4T, JetPack and power mode; None if this is not a Jetson."""
    board = model.read_bytes().decode(errors="replace").strip("\0\n ") if model.is_file() else ""
    if not release.is_file() and "nvidia" not in board.lower():
        return None
    text = release.read_text("utf-8", errors="replace") if release.is_file() else ""
    l4t = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    jetpack = ask("dpkg-query", "--show", "--showformat=${Version}", "nvidia-jetpack")
    installed = jetpack.detail if jetpack.state == WORKS else None
    mode = ask("nvpmodel", "-q")
    named = re.search(r"NV Power Mode: *(\S+)", mode.detail)
    mount = "in a container, mount it from the host"
    return [
        _works_if("board", board, f"{model} does not name it", mount),
        _works_if("L4T", l4t and ".".join(l4t.groups()), f"{release} does not tell the release", mount),
        _works_if("JetPack", installed, jetpack.detail, "sudo apt-get install nvidia-jetpack"),
        replace(mode, name="power mode", detail=named[1] if named else mode.detail),
    ]


def find_no_gpu() -> Finding | None:
    """Returns why no GPU can be used here; None if one can."""
    try:
        list_gpus()
    except BackendError as error:
        absent = isinstance(error.__cause__, OSError)  # libcuda.so.1 can't be loaded
        return replace(unusable(DRIVER, error), state=MISSING if absent else BROKEN)
    return None


def _works_if(name: str, detail: str | None, otherwise: str, advice: str) -> Finding:
    return Finding(name, WORKS, detail) if detail else Finding(name, MISSING, otherwise, advice)


def _import(title: str, module: str, package: str, install: str) -> Finding:
    try:
        imported = importlib.import_module(module)
        return Finding(title, WORKS, str(getattr(imported, "__version__", None) or version(package)))
    except ModuleNotFoundError as error:
        return Finding(title, MISSING, reason(error), install)
    except ImportError as error:
        reinstall = f"pip install --force-reinstall --no-cache-dir {package}"
        return Finding(title, BROKEN, reason(error), f"install the library that it lacks, or reinstall it: {reinstall}")


def _driver_release(path: Path = Path("/proc/driver/nvidia/version")) -> str:
    release = re.search(r"Kernel Module .*?(\d+\.[\d.]+)", path.read_text("utf-8")) if path.is_file() else None
    return f"{release[1]}, " if release else ""


def _describe(gpu: Gpu) -> Finding:
    memory = f"{gpu.memory_bytes / 2**30:.1f} GiB {'shared with the host' if gpu.integrated else 'of its own'}"
    return Finding(f"GPU {gpu.index}", WORKS, f"{gpu.name}, {gpu.target}, {memory}")


def _cuda_toolkit() -> Finding:
    compiler = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if compiler is None:
        return Finding("CUDA toolkit", MISSING, "no nvcc", "needed only to compile PyCUDA: install the CUDA toolkit")
    answer = ask(compiler, "--version")
    release = re.search(r"release ([\d.]+)", answer.detail)
    return Finding("CUDA toolkit", answer.state, f"nvcc {release[1]}" if release else answer.detail, answer.advice)


def _compile(target: str) -> Finding:
    from salema.kernels.compile import compile_kernel  # noqa: PLC0415 - see probe_cuda
    from salema.kernels.ops.ema import EMA_VARIANTS  # noqa: PLC0415

    try:
        compiled = compile_kernel(EMA_VARIANTS[0], target)
    except (MissingDependencyError, BackendError) as error:
        return unusable(KERNELS, error)
    return Finding(KERNELS, WORKS, f"one was compiled for {target} ({len(compiled.cubin)} bytes)")


def _copy_there_and_back(device: CudaDevice) -> None:
    with device.active():
        sent, _ = device.allocate_host(256, mapped=False)
        received, _ = device.allocate_host(256, mapped=False)
        sent[:] = range(256)
        received[:] = 0
        buffer = device.allocate(sent.nbytes)
        device.upload(buffer.address, sent)
        device.download(received, buffer.address)
        device.synchronize()
        buffer.free()
        same = (sent == received).all()
        del sent, received  # page-locked memory must be freed while the device is active
    if not same:
        raise BackendError("bytes came back from the GPU changed; test it with another program")


def _gstreamer() -> Finding:
    """Runs a pipeline as `salema-run` does. It does not need OpenCV's GStreamer."""
    from salema.runtime.sources.pipes import GST, TO_US  # noqa: PLC0415

    answer = ask(GST, "--version")
    if answer.state != WORKS:
        tools = "for GStreamer pipelines as sources: apt-get install gstreamer1.0-tools"
        return replace(answer, name=GST, advice=tools)
    ran = ask(GST, "-q", "videotestsrc", "num-buffers=1", "!", *TO_US.split())
    if ran.state != WORKS:
        plugins = "apt-get install gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
        return replace(ran, name=GST, advice=plugins)
    number = re.search(r"version ([\d.]+)", answer.detail)
    return Finding(GST, WORKS, f"{number[1] if number else 'of no known version'}, a pipeline ran")


def _nvv4l2decoder() -> Finding:
    answer = ask("gst-inspect-1.0", "nvv4l2decoder")
    detail = "NVIDIA's decoder as a GStreamer element" if answer.state == WORKS else None
    install = "on Jetson: apt-get install gstreamer1.0-tools nvidia-l4t-gstreamer"
    return _works_if("GStreamer nvv4l2decoder", detail, answer.detail, install)


def _nvdec(codecs: Sequence[str]) -> Finding:
    if not codecs:
        return Finding("NVDEC", MISSING, "PyAV's FFmpeg is built without it", "pip install --force-reinstall av")
    try:
        ctypes.CDLL("libnvcuvid.so.1")
    except OSError as error:
        driver = "it comes with the NVIDIA driver; a container needs NVIDIA_DRIVER_CAPABILITIES=all; Jetson has none"
        return Finding("NVDEC", MISSING, reason(error), driver)
    return Finding("NVDEC", WORKS, f"the driver's library loads, and PyAV has {', '.join(codecs)}")
