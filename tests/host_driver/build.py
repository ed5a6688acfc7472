"""Builds the driver, and PyCUDA against it, into .cache/host-driver; `make test` runs it as a script.

As a script it fetches PyCUDA's source and the oldest cuda-bindings that PyPI has for this Python. PyCUDA is compiled
without optimisation, its Boost as one file: the whole takes 34 s of CPU, where PyCUDA's own build alone takes 75 s.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache/host-driver"
PYCUDA, OLDEST_BINDINGS = "2026.1", "12.8.0"
SITE = CACHE / f"pycuda-{PYCUDA}-{sys.implementation.cache_tag}"
BINDINGS = CACHE / f"cuda-bindings-{OLDEST_BINDINGS}-{sys.implementation.cache_tag}"
_FLAGS = ("-std=c++20", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread")
_FILE = "libcuda.so.1"
# As PyCUDA's setup.py sets them where it is configured with its own Boost, and without cuRAND and OpenGL.
_PYCUDA_DEFINES = (
    *("-DBOOST_ALL_NO_LIB=1", "-DBOOST_THREAD_BUILD_DLL=1", "-DBOOST_MULTI_INDEX_DISABLE_SERIALIZATION=1"),
    *("-DBOOST_PYTHON_SOURCE=1", "-DBOOST_THREAD_DONT_USE_CHRONO=1", "-Dboost=pycudaboost"),
    *("-DPYGPU_PACKAGE=pycuda", "-DPYGPU_PYCUDA=1"),
)
# NVIDIA has it in a package of its own.
_PROFILER_HEADER = """#include <cuda.h>
typedef enum CUoutput_mode_enum { CU_OUT_KEY_VALUE_PAIR, CU_OUT_CSV } CUoutput_mode;
extern "C" CUresult cuProfilerInitialize(const char*, const char*, CUoutput_mode);
extern "C" CUresult cuProfilerStart(void);
extern "C" CUresult cuProfilerStop(void);
"""


def library():
    """The folder of the driver, built if its sources are others than before."""
    lacking = SITE / "lacking.cpp"
    assert lacking.is_file(), f"{SITE} is not there; make test makes it"
    sources = [lacking, *sorted(HERE.glob("*.?pp"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    folder = CACHE / f"lib-{digest}"
    if not (folder / _FILE).is_file():
        _link(folder, [HERE / "driver.cpp", lacking])
    return folder


def _link(folder, sources):
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"{os.getpid()}.partial"
    _compile(*_FLAGS, f"-Wl,-soname,{_FILE}", f"-I{_cuda_headers()}", *sources, "-o", aside)
    aside.replace(folder / _FILE)


def _compile(*arguments):
    compiler = shutil.which("g++") or sys.exit("g++ is not there; install it, on Debian with: apt-get install g++")
    done = subprocess.run([compiler, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _cuda_headers():
    folders = getattr(importlib.util.find_spec("nvidia"), "submodule_search_locations", None) or []
    found = [path.parent for folder in folders for path in Path(folder).glob("cu*/include/cuda.h")]
    return found[-1] if found else sys.exit("cuda.h is not there; install it with: pip install nvidia-cuda-runtime")


def _pip(*arguments):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *map(str, arguments)], check=True)


def make_pycuda():
    """Builds PyCUDA, and for each call that it needs a stand-in that tells that the driver lacks it."""
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        sys.exit("Python.h is not there; install Python's headers, on Debian with: apt-get install python3-dev")
    aside, scratch = SITE.with_suffix(".partial"), CACHE / "scratch"
    for folder in (aside, scratch):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    source = ("--no-deps", "--no-build-isolation", "--no-binary", "pycuda", f"pycuda=={PYCUDA}")
    _pip("download", "--dest", scratch, *source)
    with tarfile.open(scratch / f"pycuda-{PYCUDA}.tar.gz") as archive:
        archive.extractall(scratch, filter="data")
    _link(scratch, [HERE / "driver.cpp"])
    _compile_pycuda(scratch / f"pycuda-{PYCUDA}", scratch, aside)
    extension = next(aside.glob("pycuda/_driver*"))
    listed = subprocess.run(["nm", "-D", "--undefined-only", extension], capture_output=True, text=True, check=True)
    called = [name for name in listed.stdout.split() if name.startswith("cu")]
    # Weak, so that what the driver has takes their place.
    lines = [f'__attribute__((weak)) int {name}() {{ return host_driver_lacks("{name}"); }}' for name in called]
    text = "\n".join(['extern "C" {', "int host_driver_lacks(const char*);", *lines, "}", ""])
    (aside / "lacking.cpp").write_text(text)
    aside.replace(SITE)
    shutil.rmtree(scratch)


def _compile_pycuda(source, scratch, target):
    boost = source / "bpl-subset/bpl_subset"
    (boost / "pycudaboost").symlink_to("boost")
    (scratch / "cudaProfiler.h").write_text(_PROFILER_HEADER)
    parts = [path for path in sorted(boost.glob("libs/**/*.cpp")) if "thread/src" not in str(path)]
    parts += sorted(boost.glob("libs/thread/src/pthread/*.cpp"))
    (scratch / "boost.cpp").write_text("".join(f'#include "{path}"\n' for path in parts))
    folders = (source / "src/cpp", boost, sysconfig.get_paths()["include"], np.get_include(), _cuda_headers(), scratch)
    common = ["-O0", "-w", "-fPIC", *_PYCUDA_DEFINES, *(f"-I{folder}" for folder in folders)]
    units = [scratch / "boost.cpp", *(source / f"src/cpp/{name}.cpp" for name in ("cuda", "bitlog"))]
    units += [source / f"src/wrapper/{name}.cpp" for name in ("wrap_cudadrv", "mempool", "_pvt_struct_v3")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda unit: _compile(*common, "-c", unit, "-o", scratch / f"{unit.stem}.o"), units))
    shutil.copytree(source / "pycuda", target / "pycuda")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    *driver, struct = (scratch / f"{unit.stem}.o" for unit in units)
    _compile("-shared", *driver, scratch / _FILE, "-pthread", "-o", target / f"pycuda/_driver{suffix}")
    _compile("-shared", struct, "-o", target / f"pycuda/_pvt_struct{suffix}")


if __name__ == "__main__":
    if not SITE.is_dir():
        make_pycuda()
    if not BINDINGS.is_dir():
        _pip("install", "--no-deps", "--target", BINDINGS, f"cuda-bindings=={OLDEST_BINDINGS}")
    for folder in set(CACHE.glob("lib-*")) - {library()}:
        shutil.rmtree(folder)
