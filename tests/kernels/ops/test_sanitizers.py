"""The kernels' sources under the compiler's sanitizers: addresses, undefined behaviour, races between threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
LIBRARIES = {"address,undefined": "libasan.so", "thread": "libtsan.so"}


def run(sanitizer):
    library = subprocess.run(["g++", f"-print-file-name={LIBRARIES[sanitizer]}"], capture_output=True, text=True).stdout
    quiet = {"ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc", "OMP_NUM_THREADS": "1"}
    environment = os.environ | quiet | {"LD_PRELOAD": library.strip(), "PYTHONPATH": str(TESTS)}
    command = [sys.executable, str(TESTS / "sanitized.py"), sanitizer]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("sanitizer", LIBRARIES)
def test_the_kernels_are_clean(sanitizer):
    done = run(sanitizer)
    assert (done.returncode, done.stdout) == (0, "clean\n"), done.stderr[-3000:]
