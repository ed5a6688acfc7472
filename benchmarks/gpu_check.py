"""`make gpu-check`: everything that needs a GPU in one go, as JSON.

The tests marked `gpu`; PyTorch parity of maps and states over a long video in FP32 and FP16 on every backend that runs
here, with graphs on and off and both state schemes; and frames per second against PyTorch.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from salema.runtime.errors import exit_on_error

ROOT = Path(__file__).resolve().parents[1]
PRECISIONS = ("fp32", "fp16")
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def check(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("gpu-check"),
    weights: Annotated[str, typer.Option(help="Checkpoint, or seeded.")] = "seeded",
    frames: Annotated[int, typer.Option(help="Frames of the comparison with PyTorch.")] = 300,
    rounds: Annotated[int, typer.Option(help="Rounds of the timing.")] = 15,
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the script itself.")] = "cuda",
    imgsz: Annotated[tuple[int, int], typer.Option(metavar="HEIGHT WIDTH", help="Size of the network.")] = (192, 256),
    tests: Annotated[bool, typer.Option("--tests/--no-tests", help="Run the tests marked gpu.")] = True,
) -> None:
    """Run everything that needs a GPU, and leave the results as JSON."""
    with exit_on_error("gpu-check"):
        from salema.benchmarks.environment import describe_environment
        from salema.benchmarks.gpu_cases import check_precision
        from salema.export.exporter import Options
        from salema.kernels.gpus import list_gpus
        from salema.runtime.files import make_folder, write_bytes

        if device == "cuda":
            list_gpus()
        make_folder(out)
        record: dict[str, Any] = {"environment": describe_environment(), "weights": weights, "device": device}
        record["tests"] = _run_tests(out) if tests else None
        record["sanitizers"] = _run_sanitizers(out) if tests else None
        record["kernels"] = None if device == "cpu" else _time_kernels()
        for precision in PRECISIONS:
            options = Options(weights, out, precision=precision, imgsz_hw=imgsz)
            record[precision] = check_precision(options, device, frames, rounds, _say)
            write_bytes(out / "gpu-check.json", json.dumps(record, indent=1).encode())  # what is done is kept
    raise SystemExit(record["tests"]["exit_code"] if tests else 0)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _run_tests(out: Path) -> dict[str, Any]:
    """Runs what this machine can: tests of TensorRT only where a library is installed."""
    there = [name for name in ("tensorrt", "tensorrt_rtx") if importlib.util.find_spec(name)]
    chosen = "gpu" if there else "gpu and not tensorrt"
    report = (out / "gpu-tests.xml").resolve()
    command = [sys.executable, "-m", "pytest", "-q", "-m", chosen, f"--junitxml={report}"]
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=sys.stderr)  # noqa: S603
    return {"exit_code": done.returncode, "chosen": chosen, "libraries": there}


def _run_sanitizers(out: Path) -> dict[str, int] | None:
    """Runs the kernels' GPU tests under compute-sanitizer; returns exit codes by tool, None where it is not there."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return None
    codes = {}
    for tool in ("memcheck", "racecheck"):
        pytest = [sys.executable, "-m", "pytest", "-q", "-m", "gpu and not slow", "tests/kernels/test_on_gpu.py"]
        command = [program, "--tool", tool, "--error-exitcode", "1", "--target-processes", "all", *pytest]
        with (out / f"{tool}.log").open("w") as log:
            codes[tool] = subprocess.run(command, cwd=ROOT, check=False, stdout=log, stderr=log).returncode  # noqa: S603
    return codes


def _time_kernels() -> list[dict[str, Any]]:
    from salema.benchmarks.kernel_speed import KernelBench
    from salema.kernels.cuda import CudaDevice
    from salema.kernels.launcher import CudaLauncher

    device = CudaDevice()
    try:
        with device.active():
            launcher = CudaLauncher(device)
            found = [asdict(speed) for speed in KernelBench(device, launcher, with_torch=True).measure()]
            launcher.close()
            return found
    finally:
        device.close()


def main() -> None:
    """Runs the command."""
    app()


if __name__ == "__main__":
    main()
