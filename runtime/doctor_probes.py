"""What `salema-doctor` looks at in the machine: driver, GPUs, CUDA from Python, video, Jetson.

A probe returns what it found. It may raise, hang or crash with a library it loads: `run_apart` makes a finding of that.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass, replace
from importlib.metadata import version
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salema.kernels.gpus import Gpu, driver_cuda_version, list_gpus
from salema.runtime.errors import BackendError, MissingDependencyError, SalemaError, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

    from salema.kernels.cuda import CudaDevice

    Probe = Callable[[], "list[Finding] | None"]

WORKS, MISSING, BROKEN = "works", "missing", "broken"
DRIVER, PYCUDA, CUDA_BINDINGS, GPU_MEMORY = "NVIDIA driver", "PyCUDA", "cuda-bindings", "GPU memory"
_ASK_S = 10
_PROBE_S = 180
_INSTALL_CUDA = "pip install 'salema[cuda]' (PyCUDA is compiled, and needs the CUDA toolkit for that)"
_LIBRARIES = {"NumPy": ("numpy", "numpy"), "OpenCV": ("cv2", "opencv-python"), "PyAV": ("av", "av")}
_BINDINGS = {PYCUDA: ("pycuda.driver", "pycuda"), CUDA_BINDINGS: ("cuda.bindings.driver", "cuda-bindings")}


@dataclass(frozen=True)
class Finding:
    """What a probe found.

    Attributes:
        name: the thing looked at.
        state: `works`, `missing` (not installed, not there) or `broken` (there, but it does not work).
        detail: versions and facts, or the reason.
        advice: the fix, or the line that installs it; empty where it works.
    """

    name: str
    state: str
    detail: str
    advice: str = ""


def unusable(name: str, error: SalemaError) -> Finding:
    """Returns the finding for one of our errors, which say what is wrong, a semicolon, and what to do."""
    detail, _, advice = str(error).removesuffix("; salema-doctor shows what works here").partition("; ")
    advice, _, said = advice.partition(" [")  # what CUDA or TensorRT said
    detail += f" [{said}" if said else ""
    absent = isinstance(error, MissingDependencyError) and isinstance(error.__cause__, ModuleNotFoundError)
    return Finding(name, MISSING if absent else BROKEN, detail, advice.removeprefix("install it with: "))


def run_apart(name: str, probe: Probe, timeout_s: float = _PROBE_S) -> list[Finding] | None:
    """Runs a probe in a process of its own.

    A library that crashes or hangs there is a finding, and one probe's libraries can't stand in for those that another
    lacks: importing TensorRT, say, would give ONNX Runtime the files that it does not find in `salema-run`.

    Args:
        name: what a probe that fails as a whole is called.
        probe: a function that can be pickled.
        timeout_s: how long it may take.

    Returns:
        What the probe returns; one finding, `broken`, where it raises, crashes or hangs.
    """
    context: Any = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, name, probe), daemon=True)
    try:
        process.start()
    except OSError as error:  # no folder for its socket, say
        return [Finding(name, BROKEN, f"can't be looked at: {reason(error)}", "run it in another folder")]
    there.close()
    try:
        if here.poll(timeout_s):
            answer: list[Finding] | None = here.recv()
            return answer
        return [Finding(name, BROKEN, f"no answer within {timeout_s:g} s", "run again, and report it if it repeats")]
    except EOFError:
        process.join()
        names = {-number: number.name for number in signal.Signals}
        ended = names.get(process.exitcode, f"exit code {process.exitcode}")
        return [Finding(name, BROKEN, f"crashed ({ended})", "install it anew, and report this if it repeats")]
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()


def _answer(there: Connection, name: str, probe: Probe) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what libraries print there is none of the report
        os.dup2(nowhere, stream)
    try:
        answer = probe()
    except SalemaError as error:
        answer = [unusable(name, error)]
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        answer = [Finding(name, BROKEN, f"{where}{reason(error)}", "see to it that the file can be read")]
    except Exception as error:  # noqa: BLE001 - whatever a foreign library raises is the finding
        answer = [
            Finding(
                name, BROKEN, f"{type(error).__name__}: {reason(error)}", "report it, unless a line above explains it"
            )
        ]
    there.send(answer)


def ask(*command: str) -> Finding:
    """Runs a command of the system: the finding's detail is what it printed, or why it did not."""
    name = command[0]
    again = f"see what it says: {' '.join(command)}"
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands
            command, capture_output=True, text=True, errors="replace", timeout=_ASK_S, check=False
        )
    except FileNotFoundError:
        return Finding(name, MISSING, f"{name} is not installed", f"install {name}")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, BROKEN, f"{name}: {reason(error)}", again)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        return Finding(name, BROKEN, f"{name}: {said.removeprefix(f'{name}: ')}", again)
    return Finding(name, WORKS, done.stdout.strip())


def probe_system() -> list[Finding]:
    """Looks at the machine, Python, this package and what it can't do without."""
    return [
        Finding("platform", WORKS, platform.platform()),
        Finding("Python", WORKS, platform.python_version()),
        _import("salema", "salema.runtime", "salema", "pip install salema"),
        *(_import(title, *where, f"pip install {where[1]}") for title, where in _LIBRARIES.items()),
    ]


def probe_gpus() -> list[Finding]:
    """Looks at the NVIDIA driver, the GPUs it shows, and the CUDA toolkit beside it."""
    lacking = find_no_gpu()
    if lacking:
        return [lacking]
    return [
        Finding(DRIVER, WORKS, f"{_driver_release()}serves CUDA up to {driver_cuda_version()}"),
        *(_describe(gpu) for gpu in list_gpus()),
        _cuda_toolkit(),
    ]


def probe_cuda() -> list[Finding]:
    """Imports PyCUDA and cuda-bindings, and copies bytes to the GPU and back where there is one."""
    findings = [_import(title, *where, _INSTALL_CUDA) for title, where in _BINDINGS.items()]
    if find_no_gpu() or any(finding.state != WORKS for finding in findings):
        return findings
    from salema.kernels.cuda import CudaDevice  # noqa: PLC0415 - it needs NumPy, which the other probes do without

    device = CudaDevice(0)
    try:
        _copy_there_and_back(device)
    except BackendError as error:
        return [*findings, unusable(GPU_MEMORY, error)]
    finally:
        device.close()
    return [*findings, Finding(GPU_MEMORY, WORKS, f"bytes went to {device.name} and came back")]


def probe_video() -> list[Finding]:
    """Looks at FFmpeg through PyAV, GStreamer in OpenCV and on its own, and NVIDIA's decoders."""
    import av  # noqa: PLC0415 - a probe of its own tells where they can't be imported
    import cv2  # noqa: PLC0415

    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    x264 = "libx264" if "libx264" in av.codecs_available else None
    gstreamer = re.search(r"GStreamer: *(YES.*)", cv2.getBuildInformation())
    return [
        Finding("FFmpeg", WORKS, f"libavcodec {codec} in PyAV {av.__version__}"),
        _found("H.264 encoder", x264, "this PyAV has no libx264", "pip install --force-reinstall av"),
        _found(
            "GStreamer in OpenCV",
            gstreamer and gstreamer[1],
            f"OpenCV {cv2.__version__} is built without it",
            "the system's OpenCV has it: apt-get install python3-opencv",
        ),
        _nvv4l2decoder(),
        _nvdec(sorted(name for name in av.codecs_available if name.endswith("_cuvid"))),
    ]


def probe_jetson(
    release: Path = Path("/etc/nv_tegra_release"), model: Path = Path("/proc/device-tree/model")
) -> list[Finding] | None:
    """Looks at board, L4T, JetPack and power mode; None where this is no Jetson."""
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
        _found("board", board, f"{model} does not name it", mount),
        _found("L4T", l4t and ".".join(l4t.groups()), f"{release} does not tell the release", mount),
        _found("JetPack", installed, jetpack.detail, "sudo apt-get install nvidia-jetpack"),
        replace(mode, name="power mode", detail=named[1] if named else mode.detail),
    ]


def find_no_gpu() -> Finding | None:
    """Returns why no GPU can be used here; None where one can."""
    try:
        list_gpus()
    except BackendError as error:
        absent = isinstance(error.__cause__, OSError)  # libcuda.so.1 can't be loaded
        return replace(unusable(DRIVER, error), state=MISSING if absent else BROKEN)
    return None


def _found(name: str, detail: str | None, otherwise: str, advice: str) -> Finding:
    return Finding(name, WORKS, detail) if detail else Finding(name, MISSING, otherwise, advice)


def _import(title: str, module: str, package: str, install: str) -> Finding:
    try:
        found = importlib.import_module(module)
        return Finding(title, WORKS, str(getattr(found, "__version__", None) or version(package)))
    except ModuleNotFoundError as error:
        return Finding(title, MISSING, reason(error), install)
    except ImportError as error:
        anew = f"pip install --force-reinstall --no-cache-dir {package}"
        return Finding(title, BROKEN, reason(error), f"install what it lacks, or itself anew: {anew}")


def _driver_release(path: Path = Path("/proc/driver/nvidia/version")) -> str:
    found = re.search(r"Kernel Module .*?(\d+\.[\d.]+)", path.read_text("utf-8")) if path.is_file() else None
    return f"{found[1]}, " if found else ""


def _describe(gpu: Gpu) -> Finding:
    memory = f"{gpu.memory_bytes / 2**30:.1f} GiB {'shared with the host' if gpu.integrated else 'of its own'}"
    return Finding(f"GPU {gpu.index}", WORKS, f"{gpu.name}, {gpu.target}, {memory}")


def _cuda_toolkit() -> Finding:
    compiler = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if compiler is None:
        return Finding("CUDA toolkit", MISSING, "no nvcc", "needed to compile PyCUDA only: install CUDA's toolkit")
    said = ask(compiler, "--version")
    found = re.search(r"release ([\d.]+)", said.detail)
    return Finding("CUDA toolkit", said.state, f"nvcc {found[1]}" if found else said.detail, said.advice)


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
        del sent, received  # page-locked: freed here, where the device is active
    if not same:
        raise BackendError("bytes came back from the GPU changed; test it with another program")


def _nvv4l2decoder() -> Finding:
    found = ask("gst-inspect-1.0", "nvv4l2decoder")
    there = "NVIDIA's decoder as a GStreamer element" if found.state == WORKS else None
    install = "on Jetson: apt-get install gstreamer1.0-tools nvidia-l4t-gstreamer"
    return _found("GStreamer nvv4l2decoder", there, found.detail, install)


def _nvdec(codecs: Sequence[str]) -> Finding:
    if not codecs:
        return Finding("NVDEC", MISSING, "PyAV's FFmpeg is built without it", "pip install --force-reinstall av")
    try:
        ctypes.CDLL("libnvcuvid.so.1")
    except OSError as error:
        driver = "it comes with the NVIDIA driver; a container needs NVIDIA_DRIVER_CAPABILITIES=all; Jetson has none"
        return Finding("NVDEC", MISSING, reason(error), driver)
    return Finding("NVDEC", WORKS, f"the driver's library is there, and PyAV has {', '.join(codecs)}")
