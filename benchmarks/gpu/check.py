"""`make gpu-check`: all checks that need a GPU in one go, with the results as JSON.

It runs the tests marked `gpu`; compares maps and states over a long video with PyTorch's in FP32 and FP16, on every
backend that runs here, with graphs on and off and both state schemes; and measures frames per second against PyTorch.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TextIO

import typer

from salema.runtime.errors import exit_on_error
from salema.runtime.files.whole_files import make_folder, write_bytes
from salema.runtime.telling import tell

ROOT = Path(__file__).resolve().parents[2]
PRECISIONS = ("fp32", "fp16")
GPU_TESTS = (
    "tests/benchmarks/gpu/test_check.py",
    "tests/export/engine/test_to_engine.py",
    "tests/kernels/device/test_cuda.py",
    "tests/kernels/test_gpus.py",
    "tests/kernels/device/test_on_gpu.py",
    "tests/runtime/gpu/test_on_devices.py",
    "tests/runtime/test_session.py",
)
"""The files that hold tests marked `gpu`; other files may need packages that a GPU machine lacks."""
# Other versions of libraries than the tests were written for may warn.
_PYTEST = (sys.executable, "-m", "pytest", "-q", "-W", "default")
_SANITIZED = ("tests/kernels/device/test_on_gpu.py", "tests/runtime/gpu/test_on_devices.py")
_RUN_S, _TIMED_OUT = 480, 124
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def check(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("gpu-check"),
    weights: Annotated[str, typer.Option(help="Checkpoint, or seeded.")] = "seeded",
    frames: Annotated[int, typer.Option(help="Frames of the comparison with PyTorch.")] = 300,
    rounds: Annotated[int, typer.Option(help="Rounds of the timing.")] = 15,
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the script itself.")] = "cuda",
    imgsz: Annotated[tuple[int, int], typer.Option(metavar="HEIGHT WIDTH", help="Size of the network.")] = (192, 256),
    seconds: Annotated[float, typer.Option(help="Of each case of salema-bench.")] = 3,
    tests: Annotated[bool, typer.Option("--tests/--no-tests", help="Run the tests marked gpu.")] = True,
    sanitizers: Annotated[
        bool, typer.Option("--sanitizers/--no-sanitizers", help="Run the kernels' tests under compute-sanitizer.")
    ] = True,
) -> None:
    """Run all checks that need a GPU, and leave the results as JSON."""
    with exit_on_error("gpu-check", "use a smaller --imgsz"):
        from salema.benchmarks.gpu.cases import check_precision, split_of
        from salema.benchmarks.machine.environment import describe_environment
        from salema.export.options import ExportOptions
        from salema.kernels.gpus import list_gpus

        if device == "cuda":
            list_gpus()
        results = _Results(out, {"environment": describe_environment(), "weights": weights, "device": device})
        results.keep("tests", _run_tests(out) if tests else None)
        results.keep("sanitizers", _run_sanitizers(out) if sanitizers else None)
        results.keep("kernels", None if device == "cpu" else _time_kernels())
        with TemporaryDirectory() as scratch:
            folders = [Path(scratch) / precision for precision in PRECISIONS]
            for folder in folders:
                options = ExportOptions(precision=folder.name, imgsz_hw=imgsz)
                results.keep(folder.name, check_precision(weights, folder, options, device, frames, rounds, tell))
            results.keep("bench", _run_bench([*folders, *map(split_of, folders)], out, weights, device, seconds))
    raise SystemExit(int(results.has_failed()))


class _Results:
    """What was measured so far, written anew after each step: a later failure loses nothing."""

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        make_folder(folder)
        self._file, self._record = folder / "gpu-check.json", record

    def keep(self, name: str, value: object) -> None:
        self._record[name] = value
        write_bytes(self._file, json.dumps(self._record, indent=1).encode())

    def has_failed(self) -> bool:
        tests, sanitizers = self._record["tests"] or {}, self._record["sanitizers"] or {}
        return any((tests.get("exit_code", 0), *sanitizers.values()))


def _run_tests(out: Path) -> dict[str, Any]:
    """Runs the tests marked `gpu`; those of TensorRT only where a library of it is installed."""
    installed = [name for name in ("tensorrt", "tensorrt_rtx") if importlib.util.find_spec(name)]
    chosen = "gpu" if installed else "gpu and not tensorrt"
    report = (out / "gpu-tests.xml").resolve()
    done = _run([*_PYTEST, "-m", chosen, f"--junitxml={report}", *GPU_TESTS], sys.stderr)
    return {"exit_code": done, "chosen": chosen, "libraries": installed}


def _run_sanitizers(out: Path) -> dict[str, int] | None:
    """Runs the kernels' GPU tests under compute-sanitizer; returns exit codes by tool, or None where it is missing."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return None
    codes = {}
    for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
        command = [program, "--tool", tool, "--error-exitcode", "1", "--target-processes", "all"]
        with (out / f"{tool}.log").open("w") as log:
            codes[tool] = _run([*command, *_PYTEST, "-m", "gpu", *_SANITIZED], log)
    return codes


def _run(command: list[str], output: TextIO) -> int:
    try:
        done = subprocess.run(command, cwd=ROOT, check=False, stdout=output, stderr=output, timeout=_RUN_S)  # noqa: S603
    except subprocess.TimeoutExpired:
        return _TIMED_OUT
    return done.returncode


def _run_bench(folders: Sequence[Path], out: Path, weights: str, device: str, seconds: float) -> list[str]:
    """Runs salema-bench over the models that run here; returns the names of its cases."""
    from salema.benchmarks.speed.bench import run_bench
    from salema.benchmarks.speed.cases import Plan
    from salema.benchmarks.speed.records import write_records
    from salema.runtime.model_folder import look_up

    # Without an engine, ONNX Runtime runs split models on the CPU only.
    models = [path for path in folders if device == "cpu" or not look_up(path).is_split or [*path.glob("*.engine")]]
    peers = ("pytorch",) if device == "cpu" else ("pytorch-fp16", "pytorch", "pytorch-cuda-graph")
    records = run_bench(Plan(tuple(models), peers=peers, duration_s=seconds, device=device, weights=weights), tell)
    write_records(out / "bench.jsonl", records)
    return [record["case"] for record in records]


def _time_kernels() -> list[dict[str, Any]] | dict[str, str]:
    """Returns the kernels' speeds, or why there are none."""
    from salema.benchmarks.gpu.kernel_speed import KernelBench
    from salema.kernels.device.cuda import CudaDevice
    from salema.kernels.device.launcher import CudaLauncher
    from salema.kernels.errors import SalemaError

    try:
        with closing(CudaDevice()) as device, device.active(), closing(CudaLauncher(device)) as launcher:
            bench = KernelBench(device, launcher, with_torch=True)
            try:
                return [asdict(speed) for speed in bench.measure()]
            finally:
                bench.free()
    except SalemaError as error:
        return {"error": str(error)}


def main() -> None:
    """Runs the command."""
    app()


if __name__ == "__main__":
    main()
