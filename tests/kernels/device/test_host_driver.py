"""What needs a GPU, on the strict CUDA driver over host memory of tests/host_driver."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from host_driver.build import BINDINGS, SITE, library

TESTS = Path(__file__).parents[2]
LEFT_OUT = "not pytorch_keeps_its_context"  # which is of a real GPU only
DEVICE = ("kernels/device/test_cuda.py", "host_driver/sessions.py")
ALL = (*DEVICE, "kernels/test_gpus.py", "kernels/device/test_on_gpu.py", "runtime/gpu/test_on_devices.py")
ALL += ("benchmarks/gpu/test_kernel_speed.py",)


@pytest.mark.parametrize(
    ("bindings", "cuda_version", "files", "chosen", "least"),
    [
        pytest.param(None, "13000", (*ALL, "host_driver/strictness.py"), LEFT_OUT, 120, id="installed bindings"),
        pytest.param(BINDINGS, "12080", DEVICE, f"{LEFT_OUT} and not salema_run", 40, id="oldest bindings"),
    ],
)
def test_tests_that_need_a_gpu_pass_on_the_host_driver(
    bindings, cuda_version, files, chosen, least, exported, tmp_path
):
    paths = filter(None, (bindings, SITE, TESTS, os.environ.get("PYTHONPATH")))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | {
        "SALEMA_HOST_DRIVER": cuda_version,
        "SALEMA_HOST_DRIVER_MODEL": str(exported()),
        "SALEMA_HOST_DRIVER_SPLIT": str(exported(split=True)),
        "LD_LIBRARY_PATH": str(library()),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "XDG_CACHE_HOME": str(tmp_path),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "host_driver.plugin", "-p", "no:cacheprovider"]
    command += ["-k", chosen, "--basetemp", str(tmp_path / "inner"), *(str(TESTS / name) for name in files)]
    ran = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert int(re.search(r"(\d+) passed", ran.stdout)[1]) >= least
    assert "skipped" not in ran.stdout


def test_the_host_driver_is_no_gpu_for_anything_else(tmp_path):
    """Its library alone, without the variable that turns it on, finds no GPU."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library())}
    environment.pop("SALEMA_HOST_DRIVER", None)
    code = "from salema.kernels.gpus import list_gpus; list_gpus()"
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "no NVIDIA GPU is visible" in ran.stderr
