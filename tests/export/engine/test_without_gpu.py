"""The messages on a machine without a GPU."""

import os
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.tensorrt
EXPORT = "from salema.export.cli import main; main()"


def without_gpu(code, *args):
    """Runs Python where CUDA shows no GPU, if there is one."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, env=environment
    )


def test_without_a_gpu_the_command_says_what_to_run_where(folder):
    done = without_gpu(EXPORT, "--from", folder)
    assert done.returncode == 1
    assert re.fullmatch(
        "salema-export: no engine was built: no NVIDIA .*; on the machine with the GPU run: salema-export --from"
        rf" {folder} --engine tensorrt \(or tensorrt-rtx, which builds here with --target\)\n",
        done.stderr,
    )
    done = without_gpu(EXPORT, "--weights", "seeded:32", "--imgsz", 32, 32, "-o", folder / "new")
    assert done.returncode == 0
    assert re.search(r"engine        none \(auto: no NVIDIA .*--from \S+/new --engine tensorrt", done.stderr)
    done = without_gpu(EXPORT, "--weights", "seeded:32", "--optimization-level", 4, "-o", folder / "newer")
    assert done.returncode == 1
    assert "engine options were given, but no engine can be built: no NVIDIA" in done.stderr
    assert not (folder / "newer").exists()
    (folder / "new/model.onnx").unlink()
    (folder / "new").rmdir()
    done = without_gpu(EXPORT, "--from", folder, "--engine", "tensorrt-rtx")
    assert done.returncode == 1
    assert re.search("builds on the GPU that the engine is for: no NVIDIA .*such as --target sm89", done.stderr)
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]


def test_loading_an_engine_without_a_gpu_ends_in_a_sentence(folder, build):
    path = build(folder).path
    code = (
        "import sys; from pathlib import Path; from salema.runtime.gpu.trt_engine import deserialize\n"
        "from salema.runtime.gpu.trt_library import TENSORRT_RTX, load_library\n"
        "from salema.runtime.errors import BackendError\n"
        "plan, library = Path(sys.argv[1]).read_bytes(), load_library(TENSORRT_RTX)\n"
        "runtime = library.trt.Runtime(library.logger)\n"
        "for load in (lambda: deserialize(library, plan, 'it', version_compatible=False),\n"
        "             lambda: library.must(runtime.deserialize_cuda_engine(plan), 'loading')):\n"
        "    try: load()\n"
        "    except BackendError as error: print(error)\n"
    )
    done = without_gpu(code, path)
    ours, theirs = done.stdout.splitlines()
    assert re.match("no NVIDIA (driver|GPU) .*nvidia-smi", ours)
    assert re.match(r"TensorRT-RTX \S+: loading failed: no NVIDIA (driver|GPU) .*(cudaError|CUDA)", theirs)
    assert done.stderr == ""
    done = without_gpu(
        "from salema.runtime.cli.run import main; main()", __file__, "--model", folder, "--backend", "tensorrt-rtx"
    )
    assert done.returncode == 1
    assert re.fullmatch("salema-run: no NVIDIA (driver|GPU) .*\n", done.stderr)
