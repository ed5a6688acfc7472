"""The messages on a machine without a GPU."""

import json
import os
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.tensorrt
# Several runs of the command in one process, each of a line of arguments: the imports alone take seconds.
EXPORTS = """
import contextlib, io, json, sys
from salema.export.cli import main
ran = []
for sys.argv[1:] in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as stop:
            ran.append((stop.code or 0, err.getvalue()))
json.dump(ran, sys.stdout)
"""


def without_gpu(code, *args):
    """Runs Python where CUDA shows no GPU, if there is one."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, env=environment
    )


def test_without_a_gpu_the_command_says_what_to_run_where(folder):
    weights = ("--weights", "seeded:32")
    lines = [
        ("--from", folder),
        (*weights, "--imgsz", 32, 32, "-o", folder / "new"),
        (*weights, "--optimization-level", 4, "-o", folder / "newer"),
        ("--from", folder, "--engine", "tensorrt-rtx"),
    ]
    done = without_gpu(EXPORTS, json.dumps([list(map(str, line)) for line in lines]))
    assert done.returncode == 0, done.stderr
    (code, err), *rest = json.loads(done.stdout)
    assert code == 1
    assert re.fullmatch(
        "salema-export: no engine was built: no NVIDIA .*; on the machine with the GPU run: salema-export --from"
        rf" {folder} --engine tensorrt \(or tensorrt-rtx, which builds here with --target\)\n",
        err,
    )
    (exported, told), (refused, why), (unbuilt, advice) = rest
    assert (exported, refused, unbuilt) == (0, 1, 1)
    assert re.search(r"engine        none \(auto: no NVIDIA .*--from \S+/new --engine tensorrt", told)
    assert "engine options were given, but no engine can be built: no NVIDIA" in why
    assert re.search("builds on the GPU that the engine is for: no NVIDIA .*such as --target sm89", advice)
    (folder / "new/model.onnx").unlink()
    (folder / "new").rmdir()
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
