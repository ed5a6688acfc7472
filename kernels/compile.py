"""Compiles kernels for one GPU, with NVRTC or nvcc, and keeps the code in the user's cache.

Source: "NVRTC", CUDA Toolkit documentation 12 and 13. With `-fmad=false` (no fused multiply-add) kernels round as their
NumPy twins and OpenCV do; they are limited by memory, not by arithmetic.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from salema.kernels.errors import BackendError, MissingDependencyError, reason
from salema.kernels.gpus import driver_cuda_version

SOURCES = Path(__file__).parent / "csrc"
_COMMON = ("-std=c++17", "-fmad=false")
_COMPILE_S = 120
_LAST_SUFFIX = 12  # up to CUDA 12 the names of NVIDIA's wheels end in -cu12; from 13 on they have a version only
_ELF = b"\x7fELF"


@dataclass(frozen=True)
class Variant:
    """One kernel with its compile-time options; `defines` are `-D` values by name."""

    name: str
    defines: Mapping[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The `-D` options, sorted."""
        return tuple(f"-D{name}={value}" for name, value in sorted(self.defines.items()))


@dataclass(frozen=True)
class Compiled:
    """Code for one GPU, and the compiler's log, which tells registers and spills."""

    cubin: bytes
    log: str


def compile_kernel(variant: Variant, target: str) -> Compiled:
    """Compiles a kernel for one GPU, such as `sm89`: with NVRTC if it is installed and knows the GPU, else with nvcc.

    Raises:
        MissingDependencyError: neither compiler is installed, or this NVRTC doesn't know the GPU.
        BackendError: the compiler refuses the source; the message holds its log.
    """
    try:
        return compile_with_nvrtc(variant, target)
    except MissingDependencyError:
        nvcc = _find_nvcc()
        if nvcc is None:
            raise
        return compile_with_nvcc(nvcc, variant, target)


def load_kernel(variant: Variant, target: str, cache: Path | None = None) -> bytes:
    """Returns a kernel's code, from the cache or newly compiled.

    The name in the cache has a hash of all sources, the options, the GPU and the compiler's version.
    """
    folder = cache if cache is not None else _default_cache()
    path = folder / f"{variant.name}-{target}-{_key(variant, target)}.cubin"
    if path.is_file() and (kept := path.read_bytes()).startswith(_ELF):  # a power cut may leave zeros or nothing
        return kept
    cubin = compile_kernel(variant, target).cubin
    aside = path.with_suffix(f".{os.getpid()}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(cubin)
        aside.replace(path)
    except OSError:  # without a cache each start takes a second to compile
        with suppress(OSError):
            aside.unlink()  # a full disk leaves a part of it
    return cubin


def _default_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(home) / "salema" / "kernels"


def _key(variant: Variant, target: str) -> str:
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.read_bytes())
    digest.update(repr((variant.arguments, target, _COMMON, _compiler_version(target))).encode())
    return digest.hexdigest()[:16]


def _import_nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc  # noqa: PLC0415 - optional

        nvrtc.nvrtcVersion()
    except Exception as error:  # cuda-bindings raises its own classes if libnvrtc is missing
        raise MissingDependencyError(
            f"NVRTC can't be loaded ({reason(error)}); install it with: pip install 'salema[cuda]' {_nvrtc_wheel()}"
        ) from error
    return nvrtc


def _nvrtc_for(target: str) -> Any:
    """Returns NVRTC if its version compiles for this GPU and this driver."""
    nvrtc = _import_nvrtc()
    known = _check(nvrtc, nvrtc.nvrtcGetSupportedArchs())
    number = int(target.removeprefix("sm"))
    version = ".".join(map(str, nvrtc.nvrtcVersion()[1:]))
    _refuse_too_new("NVRTC", version, f"pip uninstall -y nvidia-cuda-nvrtc && pip install {_nvrtc_wheel()}")
    if number not in known:
        newer = f"a newer one with: pip install -U {_nvrtc_wheel()}"
        raise MissingDependencyError(
            f"NVRTC {version} compiles for sm{min(known)} to sm{max(known)}, and not for {target}; install"
            f" {'an older version of it' if number < min(known) else newer}"
        )
    return nvrtc


def _driver_major() -> int | None:
    """Returns the major version of the CUDA that the driver serves; None without a driver."""
    try:
        return int(driver_cuda_version().partition(".")[0])
    except BackendError:
        return None


def _nvrtc_wheel() -> str:
    """Returns NVIDIA's wheel of NVRTC whose code the driver here loads, as a shell takes it."""
    major = _driver_major()
    if major is None:
        return "nvidia-cuda-nvrtc"
    return f"nvidia-cuda-nvrtc-cu{major}" if major <= _LAST_SUFFIX else f"'nvidia-cuda-nvrtc=={major}.*'"


def _refuse_too_new(compiler: str, version: str, advice: str) -> None:
    """A driver loads the code of compilers of its own major version and of older ones (JetPack 6 has CUDA 12)."""
    major = _driver_major()
    if major is not None and int(version.partition(".")[0]) > major:
        raise MissingDependencyError(
            f"{compiler} {version} makes code that this driver, which is of CUDA {major}, does not load; install one of"
            f" CUDA {major} with: {advice}"
        )


def _compiler_version(target: str) -> tuple[int, ...] | str | None:
    """Returns the version of the compiler that `compile_kernel` takes: NVRTC's numbers or nvcc's text."""
    try:
        _, *version = _nvrtc_for(target).nvrtcVersion()
    except MissingDependencyError:
        nvcc = _find_nvcc()
        return None if nvcc is None else _run_nvcc(nvcc, "--version").stdout
    return tuple(version)


def compile_with_nvrtc(variant: Variant, target: str) -> Compiled:
    """See `compile_kernel`."""
    nvrtc = _nvrtc_for(target)
    headers = sorted(SOURCES.glob("*.cuh"))
    source = (SOURCES / f"{variant.name}.cu").read_bytes()
    program = _check(
        nvrtc,
        nvrtc.nvrtcCreateProgram(
            source,
            f"{variant.name}.cu".encode(),
            len(headers),
            [path.read_bytes() for path in headers],
            [path.name.encode() for path in headers],
        ),
    )
    try:
        return _compile(nvrtc, program, variant, target)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _compile(nvrtc: Any, program: Any, variant: Variant, target: str) -> Compiled:
    options = [*_COMMON, f"--gpu-architecture={target.replace('sm', 'sm_')}", "--ptxas-options=-v", *variant.arguments]
    status = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])[0]
    log = bytes(_check(nvrtc, nvrtc.nvrtcGetProgramLogSize(program)))
    _check(nvrtc, nvrtc.nvrtcGetProgramLog(program, log))
    text = log.decode(errors="replace").strip("\0\n ")
    if int(status):
        raise BackendError(f"the kernel {variant.name} does not compile for {target}: {text}")
    cubin = bytes(_check(nvrtc, nvrtc.nvrtcGetCUBINSize(program)))
    _check(nvrtc, nvrtc.nvrtcGetCUBIN(program, cubin))
    return Compiled(cubin, text)


def _check(nvrtc: Any, result: tuple[Any, ...]) -> Any:
    status, *values = result
    if int(status):
        _, text = nvrtc.nvrtcGetErrorString(status)
        raise BackendError(f"NVRTC failed: {text.decode() if text else status}")
    return values[0] if values else None


def _find_nvcc() -> str | None:
    """Returns the compiler of the CUDA toolkit, or of NVIDIA's wheel `nvidia-cuda-nvcc`."""
    wheels = getattr(importlib.util.find_spec("nvidia"), "submodule_search_locations", None) or []
    inside = [str(path) for folder in wheels for path in Path(folder).glob("cu*/bin/nvcc")]
    candidates = ["nvcc", "/usr/local/cuda/bin/nvcc", *inside]
    return next(filter(None, map(shutil.which, candidates)), None)


def compile_with_nvcc(nvcc: str, variant: Variant, target: str) -> Compiled:
    """See `compile_kernel`."""
    release = re.search(r"release (\d+\.\d+)", _run_nvcc(nvcc, "--version").stdout)
    if release:
        _refuse_too_new(nvcc, release[1], f"pip install {_nvrtc_wheel()} (NVRTC does the same)")
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        options = [*_COMMON, f"-arch={target.replace('sm', 'sm_')}", "-cubin", "-Xptxas=-v", *variant.arguments]
        done = _run_nvcc(nvcc, *options, "-o", str(cubin), str(SOURCES / f"{variant.name}.cu"))
        if done.returncode:
            raise BackendError(f"the kernel {variant.name} does not compile for {target}: {done.stderr.strip()}")
        return Compiled(cubin.read_bytes(), done.stderr)


def _run_nvcc(nvcc: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [nvcc, *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise BackendError(
            f"{nvcc} has not ended in {_COMPILE_S} s; try again with less else running, or install NVRTC with:"
            f" pip install {_nvrtc_wheel()}"
        ) from None
    except OSError as error:
        raise BackendError(f"{nvcc}: can't be run ({reason(error)}); reinstall the CUDA toolkit") from error
