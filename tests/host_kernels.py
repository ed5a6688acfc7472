"""The kernels' own sources built for the CPU: a launcher over host memory, with sanitizers on request."""

import ctypes
import hashlib
import os
import subprocess
from pathlib import Path

import numpy as np
from filelock import FileLock

from salema.kernels.arrays import Array
from salema.kernels.compile import SOURCES

HERE = Path(__file__).parent
ROOT = HERE.parent
FLAGS = ["-std=c++20", "-O1", "-g1", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror"]


def build(variant, sanitizer=""):
    """Compiles a kernel for the CPU, once for each source, options and sanitizer; returns the library's path."""
    sources = [SOURCES / f"{variant.name}.cu", HERE / "host_cuda.h", *sorted(SOURCES.glob("*.cuh"))]
    text = b"".join(path.read_bytes() for path in sources) + repr((variant.arguments, sanitizer, FLAGS)).encode()
    path = ROOT / f".cache/host-kernels/{variant.name}-{hashlib.sha256(text).hexdigest()[:16]}.so"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # several of pytest-xdist's workers need the same ones
            if not path.is_file():
                compile_one(variant, sources[0], path, sanitizer)
    return path


def compile_one(variant, source, path, sanitizer):
    waits = any(word in source.read_text() for word in ("__syncthreads", "_sync("))
    checks = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"] if sanitizer else []
    command = ["g++", *FLAGS, *checks, "-DSALEMA_HOST", f"-DSALEMA_WAITS={int(waits)}", *variant.arguments]
    aside = path.with_suffix(f".{os.getpid()}.partial")
    command += [f"-include{HERE / 'host_cuda.h'}", "-x", "c++", str(source)]
    done = subprocess.run([*command, "-shared", "-fPIC", "-pthread", "-o", str(aside)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    aside.replace(path)


class HostLauncher:
    device = "host"

    def __init__(self, sanitizer=""):
        self._sanitizer = sanitizer
        self.launches = []

    def launch(self, variant, grid, block, arguments, *, together=False):
        library = ctypes.CDLL(str(build(variant, self._sanitizer)))
        three = ctypes.c_uint * 3
        values = [np.array(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        launch = getattr(library, f"{variant.name}_launch")
        launch(three(*grid), three(*block), pointers, ctypes.c_int(together))
        self.launches.append(variant)

    def close(self):
        self.closed = True


def on_host(array):
    """An array in NumPy's memory as a kernel's argument; the caller keeps the array."""
    return Array(array.ctypes.data, array.shape, array.dtype, HostLauncher.device)


def aligned(shape, dtype, rng=None):
    """An array whose address is a multiple of 16 and no more; random where asked."""
    dtype = np.dtype(dtype)
    nbytes = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(nbytes + 48, np.uint8)
    start = -memory.ctypes.data % 32 + 16
    array = memory[start : start + nbytes].view(dtype).reshape(shape)
    if rng is not None:
        array[:] = rng.standard_normal(shape).astype(dtype)
    return array
