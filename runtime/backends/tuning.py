"""The fastest backend on this CPU: a short trial of those that are installed, kept beside the model.

Which one it is depends on the network and the CPU. At full size ncnn is twice as fast as the others (Winograd); at an
eighth of the channels OpenVINO is (benchmarks/results/cpu_widths.jsonl).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salema.runtime.cpu import cpu_fact, cpu_features
from salema.runtime.errors import BackendError, MissingDependencyError, ModelError, SalemaError, reason
from salema.runtime.files.whole_files import write_bytes
from salema.runtime.session import Session
from salema.runtime.spec import ModelSpec
from salema.runtime.wording import counted

RECORD_FILE = "salema-auto.json"
CANDIDATES = ("onnxruntime", "openvino", "ncnn")  # the map of the first that works is what the others' are held to
"""Backends that compute in float32, or in the integers of an INT8 graph. `auto` never takes bfloat16."""
TOLERANCE = {"fp32": 1e-4, "fp16": 3e-3, "int8": 0.05}
"""The most that a map's value may differ between backends, by the model's precision."""
NOT_HERE = (BackendError, MissingDependencyError, ModelError, OSError)
_LEAST_S, _LEAST_STEPS = 0.25, 2
_CPU_FACTS = ("model name", "cpu family", "model", "CPU implementer", "CPU variant", "CPU part")  # the last on Arm
_MOST_ENTRIES = 50
_VERSION = 1

Open = Callable[[str], Session]
"""Opens the model with a backend."""


@dataclass
class Trial:
    """What a trial found: the best time of a step by backend, and why others were passed over."""

    step_ms: dict[str, float] = field(default_factory=dict)
    passed_over: dict[str, str] = field(default_factory=dict)

    @property
    def order(self) -> list[str]:
        """The backends, the fastest first."""
        return sorted(self.step_ms, key=self.step_ms.__getitem__)

    def __str__(self) -> str:
        first, *others = (f"{name} {self.step_ms[name]:.3g}" for name in self.order)
        return "; ".join([", ".join([f"{first} ms", *others]), *self.passed_over.values()])


def installed() -> list[str]:
    """Returns the candidates whose packages are installed, imported or not."""
    return [backend for backend in CANDIDATES if find_spec(backend) is not None]


def try_all(backends: list[str], open_model: Open) -> tuple[Session, Trial]:
    """Opens the model with each backend and times steps; returns the fastest one's session, still open.

    At most two are open at a time, because of their memory.

    Raises:
        ModelError: the file is foreign or damaged.
        BackendError: no backend works.
    """
    trial, best, expected, first = Trial(), None, None, ""
    try:
        for backend in backends:
            try:
                session, step_ms, saliency = _open_and_time(backend, open_model)
            except NOT_HERE as error:
                if backend == CANDIDATES[0] and isinstance(error, ModelError):  # the file is wrong, for the others too
                    raise
                trial.passed_over[backend] = f"{backend} passed over: {error}"
                continue
            if expected is None:  # if it has a NaN, whatever runs the model tells it; OpenVINO 2026.4 hides some
                expected, first = saliency, backend
            far = float(np.abs(saliency - expected).max())
            if backend != first and not far <= TOLERANCE[session.spec.precision]:  # so that a NaN fails
                trial.passed_over[backend] = f"{backend} passed over: its map differs by {far:.2g} from {first}'s"
                session.close()
                continue
            trial.step_ms[backend] = step_ms
            best, slower = (session, best) if trial.order[0] == backend else (best, session)
            if slower is not None:
                slower.close()
    except BaseException:
        if best is not None:
            best.close()
        raise
    if best is None:
        raise BackendError("; ".join(trial.passed_over.values()))
    return best, trial


def _open_and_time(backend: str, open_model: Open) -> tuple[Session, float, NDArray[np.float32]]:
    """Opens the model with a backend; returns its session, and what `_time` returns of it."""
    session = open_model(backend)
    try:
        return session, *_time(session)
    except BaseException:
        session.close()
        raise


def _time(session: Session) -> tuple[float, NDArray[np.float32]]:
    """Returns the best time of a step in ms, and the map of the first one."""
    spec = session.spec
    batch = spec.batch or 1
    frames = np.random.default_rng(0).integers(0, 256, (batch, spec.height, spec.width, 3), np.uint8)
    states = session.from_host({each.name: np.zeros((batch, *each.shape_chw), np.float32) for each in spec.states})
    mix = np.ones(batch, np.float32)
    saliency, states = session.step(frames, states, mix)  # not timed: libraries prepare themselves in it
    mix[:] = spec.coefficient or 1
    times_s: list[float] = []
    while len(times_s) < _LEAST_STEPS or sum(times_s) < _LEAST_S:
        start = time.perf_counter()
        _, states = session.step(frames, states, mix)
        times_s.append(time.perf_counter() - start)
    return min(times_s) * 1000, saliency


class Record:
    """The trials of a model, in a file beside it: one for each CPU, number of threads and set of versions.

    Attributes:
        note: why a record that is there was of no use; empty if there was none, or it is of use.
    """

    def __init__(
        self, folder: Path, spec: ModelSpec, backends: list[str], threads: int, name: str = RECORD_FILE
    ) -> None:
        self._file = folder / name
        self._model = hashlib.sha256(spec.to_json().encode()).hexdigest()
        self._key = machine_kind(backends, threads)
        self._kind = f"this CPU with {counted(threads, 'thread')} and these versions"
        self.note = ""

    def find(self) -> Trial | None:
        """Returns the trial of this model on this machine, if there is one."""
        self.note = ""
        entries = self._read()
        entry = entries.get(self._key)
        if entry is None and entries and not self.note:
            self.note = f"{self._file.name} has no trial of {self._kind}, so it was tried anew"
        return entry and Trial(dict(entry["step_ms"]), dict(entry["passed_over"]))

    def keep(self, trial: Trial) -> None:
        """Writes a trial into the file; if that fails, the note says so."""
        entry = {"step_ms": trial.step_ms, "passed_over": trial.passed_over}
        others = [item for item in self._read().items() if item[0] != self._key][1 - _MOST_ENTRIES :]
        record = {"version": _VERSION, "model": self._model, "trials": {**dict(others), self._key: entry}}
        try:
            write_bytes(self._file, json.dumps(record, indent=1).encode())
        except (SalemaError, OSError) as error:
            self.note = f"the trial can't be kept, so each start makes it: {reason(error)}"

    def _read(self) -> dict[str, Any]:
        try:
            record = json.loads(self._file.read_text("utf-8", errors="replace"))
            if (record["version"], record["model"]) != (_VERSION, self._model):
                raise ValueError("it is of another model")  # noqa: TRY301 - handled below with all other faults
            entries: dict[str, Any] = dict(record["trials"])
            for entry in entries.values():
                str(Trial(_times(entry["step_ms"]), dict(entry["passed_over"])))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            self.note = f"{self._file.name} can't be used ({reason(error)}), so it was tried anew"
            return {}
        return entries


def _times(step_ms: Mapping[str, Any]) -> dict[str, float]:
    times = {name: float(value) for name, value in step_ms.items()}
    if not times or not set(times) <= set(CANDIDATES) or not all(value > 0 for value in times.values()):
        raise ValueError("its times are damaged")
    return times


def machine_kind(backends: list[str], threads: int) -> str:
    """Returns what a trial depends on: the CPU, the threads and the versions."""
    cpu = ", ".join(f"{name} {fact}" for name in _CPU_FACTS if (fact := cpu_fact(name)) is not None)
    versions = ", ".join(f"{backend} {_version(backend)}" for backend in backends)
    return f"{cpu}; {' '.join(cpu_features() or ())}; {threads} threads; {versions}"


def _version(backend: str) -> str:
    for name in (backend, f"{backend}-gpu"):
        try:
            return version(name)
        except PackageNotFoundError:  # noqa: PERF203 - two names
            continue
    return "of unknown version"
