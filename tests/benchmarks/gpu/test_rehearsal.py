"""`make gpu-check` with the packages that a machine with a GPU has, and those that are carried there.

Only the device is another: all stages run on the CPU.
"""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest

from salema.benchmarks.gpu.gpu_tests import GPU_TESTS
from salema.benchmarks.speed.records import read_records

ROOT = Path(__file__).parents[3]
THERE = ("torch", "onnx", "onnxscript", "onnxruntime", "cuda-bindings", "opencv-python", "scipy", "matplotlib")
THERE += ("hypothesis", "pytest", "safetensors", "typer", "tqdm")
# PyCUDA, built already, is carried with what it needs, and PyAV. These stages need none of our other dependencies.
CARRIED = ("pycuda", "pytools", "mako", "platformdirs", "av")
# Imported by Python at its start, as PYTHONPATH names its folder: by pytest and the stages' processes too.
SITE = """
import sys

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name == "salema.benchmarks.speed.limits":  # the machine's own rates as quickly as in tests/conftest.py
            from salema.benchmarks.machine import peaks, rates

            rates._LEAST_S, rates._CPU_SIZE, rates._COPY_BYTES, peaks._BURST_S = 0.01, 256, 1 << 24, 0.0005
        if name == "salema.export.exporter":  # and PyTorch's operators read once
            from traced_once import read_operators_once

            read_operators_once()
        if name.partition(".")[0] in {lacking!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}; a machine with a GPU lacks it", name=name)

sys.meta_path.insert(0, Lacking())
"""


def named(distribution):
    return re.sub(r"[-_.]+", "-", distribution).lower()


def with_needs(names):
    """The names of distributions, and of all that they need."""
    found, left = set(), list(names)
    while left:
        name = named(left.pop())
        if name in found:
            continue
        found.add(name)
        try:
            needed = requires(name) or ()
        except PackageNotFoundError:
            continue
        left += [re.match(r"[\w.-]+", line)[0] for line in needed if "extra ==" not in line]
    return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    there = with_needs((*THERE, *CARRIED)) | {"salema", "pip", "setuptools"}
    lacking = {
        module for module, owners in packages_distributions().items() if not there & {named(owner) for owner in owners}
    }
    assert {"openvino", "natsort", "tenacity", "pooch", "xdist", "tensorrt_rtx"} <= lacking
    (folder / "sitecustomize.py").write_text(SITE.format(lacking=lacking))
    path = os.pathsep.join(filter(None, (str(folder), str(ROOT / "tests"), os.environ.get("PYTHONPATH"))))
    options = ("--out", folder / "out", "--weights", "seeded:16", "--device", "cpu", "--imgsz", 64, 96)
    few = ("--frames", 6, "--rounds", 2, "--seconds", 0.1)
    command = [sys.executable, "-m", "salema.benchmarks.gpu.check", *options, *few]
    bare = {"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""}
    bare["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # pytest would load those that are lacking there
    environment = os.environ | bare
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "out"


def read(folder, stage):
    record = json.loads((folder / f"{stage}.json").read_text())
    assert record["ok"]
    assert record["environment"]["versions"]["torch"]
    return record


def test_the_gpu_tests_can_be_read_there(ran):
    found = read(ran, "tests")
    assert set(found["counts"]) == {"skipped"}
    assert found["counts"]["skipped"] > 150
    lines = [json.loads(line) for line in (ran / "tests.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(line["test"].partition("::")[0] for line in lines)) == list(GPU_TESTS)  # by worth
    [why] = found["not_available"]
    assert why.startswith("no NVIDIA ")


def test_parity_and_speed_of_every_way_that_runs(ran):
    found = read(ran, "parity")
    for precision, most in (("fp32", 1e-5), ("fp16", 3e-3)):
        compared, timed = (found[precision][kind]["onnxruntime cpu"] for kind in ("parity", "speed"))
        assert compared["frames"] == 6
        assert 0 < compared["map_max"] < most
        assert found[precision]["truth"] == "PyTorch in FP32 on cpu"
        assert timed["median_ms"] > 0
        assert timed["ratio"] == 1
        assert found[precision]["passed_over"] == {}
    assert found["failed"] == []


def test_the_bench_times_pytorch_first_and_the_models_with_it(ran):
    found = read(ran, "bench")
    names = ["pytorch", "pytorch", "fp16: onnxruntime", "pytorch", "fp32: onnxruntime"]
    assert [case["case"] for case in found["cases"]] == names
    assert [record["case"] for record in read_records(ran / "bench.jsonl")] == names
    assert all(case["median_ms"] > 0 for case in found["cases"])
    assert (
        found["cases"][0]["graph_share_of_product"] > 0
    )  # in FP32; products in FP16 are slower than that on a CPU, so it has none
    assert found["passed_over"] == {}


def test_stages_without_a_gpu_say_so(ran):
    assert read(ran, "kernels")["not_available"] == "it needs a GPU, and the device is cpu"
    assert read(ran, "sanitizers")["not_available"].startswith("compute-sanitizer is not on PATH")
    stages = ("tests", "kernels", "bench", "parity", "sanitizers")
    written = {*(f"{stage}.json" for stage in stages), "tests.jsonl", "bench.jsonl"}
    assert {path.name for path in ran.iterdir()} == written
