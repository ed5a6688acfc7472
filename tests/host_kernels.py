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
CACHE = ROOT / ".cache/host-kernels"
FLAGS = ["-std=c++20", "-O1", "-g1", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror"]
FLAGS += ["-fPIC", "-pthread"]
STANDARD = HERE / "host_standard.h"


def made_once(path, make):
    """Has a file made in another place, and named once it is whole; several of pytest-xdist's workers need the same."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.is_file():
                aside = path.with_suffix(f".{os.getpid()}.partial")
                make(aside)
                aside.replace(path)
    return path


def compile_with(*arguments, text=""):
    # A sanitizer that is preloaded into this process is not for the compiler, which is slow with it.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    command = ["g++", *FLAGS, *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def digest(*texts):
    return hashlib.sha256(b"".join(texts)).hexdigest()[:16]


def standard_headers(checks):
    """The standard library's headers, compiled: reading them takes most of a kernel's build."""
    folder = CACHE / f"standard-{digest(STANDARD.read_bytes(), repr((checks, FLAGS)).encode())}"
    header = made_once(folder / STANDARD.name, lambda aside: aside.write_bytes(STANDARD.read_bytes()))
    made_once(folder / f"{STANDARD.name}.gch", lambda to: compile_with(*checks, "-x", "c++-header", header, "-o", to))
    return header


def build(variant, sanitizer=""):
    """Compiles a kernel for the CPU, once for each source, options and sanitizer; returns the library's path."""
    source = SOURCES / f"{variant.name}.cu"
    sources = (source, HERE / "host_cuda.h", STANDARD, *sorted(SOURCES.glob("*.cuh")))
    described = repr((variant.arguments, sanitizer, FLAGS)).encode()
    name = f"{variant.name}-{digest(*(path.read_bytes() for path in sources), described)}.so"
    return made_once(CACHE / name, lambda aside: compile_one(variant, source, aside, sanitizer))


def compile_one(variant, source, path, sanitizer):
    waits = any(word in source.read_text() for word in ("__syncthreads", "_sync("))
    checks = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"] if sanitizer else []
    # Not by -D: what is defined before compiled headers, and named in them, makes them worthless.
    defined = {**variant.defines, "SALEMA_HOST": 1, "SALEMA_WAITS": int(waits)}
    lines = [f'#include "{standard_headers(checks)}"', *(f"#define {name} {value}" for name, value in defined.items())]
    lines += [f'#include "{included}"' for included in (HERE / "host_cuda.h", source)]
    compile_with(*checks, "-x", "c++", "-", "-shared", "-o", path, text="\n".join([*lines, ""]))


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
