"""What a probe of `salema-doctor` returns, and how it runs: in its own process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection
from typing import Any

from salema.runtime.errors import MissingDependencyError, SalemaError, reason

Probe = Callable[[], "list[Finding] | None"]
WORKS, MISSING, BROKEN = "works", "missing", "broken"
_ASK_S = 10
_PROBE_S = 180


@dataclass(frozen=True)
class Finding:
    """One result of a probe.

    Attributes:
        name: what was tried.
        state: `works`, `missing` (not installed, no such device) or `broken` (installed, but it does not work).
        detail: versions and facts; or why it does not work.
        advice: the fix, or the command that installs it; empty if it works.
    """

    name: str
    state: str
    detail: str
    advice: str = ""


def unusable(name: str, error: SalemaError) -> Finding:
    """Returns the finding for one of our errors: its detail is before the semicolon, its advice after."""
    detail, _, advice = str(error).removesuffix("; salema-doctor shows what works here").partition("; ")
    advice, _, message = advice.partition(" [")  # CUDA's or TensorRT's own message
    detail += f" [{message}" if message else ""
    absent = isinstance(error, MissingDependencyError) and isinstance(error.__cause__, ModuleNotFoundError)
    return Finding(name, MISSING if absent else BROKEN, detail, advice.removeprefix("install it with: "))


def run_apart(name: str, probe: Probe, timeout_s: float = _PROBE_S) -> list[Finding] | None:
    """Runs a probe in its own process, so that a library that crashes or hangs is a finding.

    Also, a library loaded by one probe can't help another: ONNX Runtime would find TensorRT's files after TensorRT was
    imported, but not so in `salema-run`.

    Returns what the probe returns; or one finding `name`, `broken`, if it raises, crashes or takes longer than
    `timeout_s`. The probe must be a function that can be pickled.
    """
    context: Any = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, name, probe), daemon=True)
    try:
        process.start()
    except OSError as error:  # for example, no folder for its socket
        return [Finding(name, BROKEN, f"can't be tried: {reason(error)}", "run it in another folder")]
    there.close()
    try:
        if here.poll(timeout_s):
            answer: list[Finding] | None = here.recv()
            return answer
        return [Finding(name, BROKEN, f"no answer within {timeout_s:g} s", "run again, and report it if it repeats")]
    except EOFError:
        process.join()
        names = {-number: number.name for number in signal.Signals}
        ended = names.get(process.exitcode, f"exit code {process.exitcode}")
        return [Finding(name, BROKEN, f"crashed ({ended})", "reinstall it, and report this if it repeats")]
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()


def _answer(there: Connection, name: str, probe: Probe) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what libraries print does not belong in the report
        os.dup2(nowhere, stream)
    try:
        answer = probe()
    except SalemaError as error:
        answer = [unusable(name, error)]
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        answer = [Finding(name, BROKEN, f"{where}{reason(error)}", "make the file readable")]
    except Exception as error:  # noqa: BLE001 - anything that a foreign library raises is a finding
        answer = [
            Finding(
                name, BROKEN, f"{type(error).__name__}: {reason(error)}", "report it, unless a line above explains it"
            )
        ]
    there.send(answer)


def ask(*command: str) -> Finding:
    """Runs a system command; the finding's detail is what the command printed, or why it failed."""
    name = command[0]
    again = f"run it to see why: {' '.join(command)}"
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands
            command, capture_output=True, text=True, errors="replace", timeout=_ASK_S, check=False
        )
    except FileNotFoundError:
        return Finding(name, MISSING, f"{name} is not installed", f"install {name}")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, BROKEN, f"{name}: {reason(error)}", again)
    if done.returncode:
        message = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        return Finding(name, BROKEN, f"{name}: {message.removeprefix(f'{name}: ')}", again)
    return Finding(name, WORKS, done.stdout.strip())
