"""Runs the tests marked `gpu`, plain and under compute-sanitizer, in processes of their own with a limit of time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from salema.benchmarks.gpu.settings import Stage

ROOT = Path(__file__).resolve().parents[2]
GPU_TESTS = (
    "tests/kernels/device/test_on_gpu.py",
    "tests/kernels/device/test_cuda.py",
    "tests/kernels/test_gpus.py",
    "tests/runtime/gpu/test_on_devices.py",
    "tests/benchmarks/gpu/test_kernel_speed.py",
    "tests/benchmarks/gpu/test_check.py",
    "tests/runtime/test_session.py",
    "tests/export/engine/test_to_engine.py",
)
"""The files that hold tests marked `gpu`, by worth; other files may need packages that a GPU machine lacks."""
SANITIZED = ("tests/kernels/device/test_on_gpu.py", "tests/runtime/gpu/test_on_devices.py")
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
_REFUSES = "Device not supported"  # compute-sanitizer's words, as on gVisor
_FAULTS = 86  # the exit code that we have it give, which pytest has no use for
TIMED_OUT = 124
_GRACE_S = 30


def run_tests(stage: Stage) -> bool:
    """Runs the tests; what each gave is in `tests.jsonl`, a line as it ends. Returns whether none failed."""
    lines = stage.settings.out / "tests.jsonl"
    lines.write_text("")
    # Other versions of libraries than the tests were written for may warn.
    command = [*_pytest(), "-p", "salema.benchmarks.gpu.line_plugin", f"--lines={lines.resolve()}", *GPU_TESTS]
    code = run_limited(command, stage.left_s, sys.stderr, ROOT)
    results = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    counts = Counter(result["outcome"] for result in results)
    skipped = Counter(result["text"] for result in results if result["outcome"] == "skipped")
    failed = [result["test"] for result in results if result["outcome"] not in {"passed", "skipped"}]
    stage.keep(exit_code=code, counts=counts, not_available=skipped, failed=failed)
    return code == 0


def run_sanitizers(stage: Stage) -> bool:
    """Runs the kernels' tests under each tool of compute-sanitizer; what they print is in `sanitizers.log`."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        stage.keep(not_available="compute-sanitizer is not on PATH; it comes with the CUDA toolkit")
        return True
    codes: dict[str, int] = {}
    with (stage.settings.out / "sanitizers.log").open("w+") as log:
        for place, tool in enumerate(TOOLS):
            share_s = stage.left_s / (len(TOOLS) - place)
            # Calls that fail and are handled, as those of tests of errors, are no faults of the kernels.
            flags = ("--report-api-errors", "no", "--error-exitcode", str(_FAULTS), "--target-processes", "all")
            command = [program, "--tool", tool, *flags, *_pytest(), *SANITIZED]
            codes[tool] = run_limited(command, share_s, log, ROOT)
            log.seek(0)
            if _REFUSES in log.read():
                stage.keep(not_available=f"compute-sanitizer says: {_REFUSES}")
                return True
            stage.keep(exit_codes=codes, faults=[name for name, code in codes.items() if code == _FAULTS])
    return not any(codes.values())


def _pytest() -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-W", "default", "-m", "gpu"]


def run_limited(
    command: list[str],
    limit_s: float,
    output: TextIO | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Runs a command; ends it and all that it started after the limit.

    Returns:
        Its exit code, negative for a signal, or `TIMED_OUT`.
    """
    with subprocess.Popen(  # noqa: S603
        command, cwd=cwd, env=environment, stdout=output, stderr=output, start_new_session=True
    ) as process:
        try:
            return process.wait(max(limit_s, 0))
        except subprocess.TimeoutExpired:
            return TIMED_OUT
        finally:
            if process.returncode is None:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and its group; it may first end what it runs in groups of their own (see `end_when_told`)."""
    os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def end_when_told() -> None:
    """Has SIGTERM end this process as an error would, so that `run_limited` ends what it runs."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def describe_end(code: int) -> dict[str, Any]:
    """Returns what to record of a stage's process that ended without saying so itself."""
    if code == TIMED_OUT:
        return {"error": "it was ended at its limit of time"}
    return {"error": f"its process ended with {signal.Signals(-code).name if code < 0 else code}"}
