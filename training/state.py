"""What a run leaves on disk to go on from, and the checkpoints that it is for."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salema.export.weights.architecture import Architecture
from salema.export.weights.checkpoint_files import stated_as
from salema.runtime.errors import UsageError
from salema.runtime.files.locks import has_locks, lock_if_possible
from salema.runtime.files.whole_files import make_folder, written_aside

STATE, LAST, BEST, SETTINGS = "state.pt", "last.pt", "best.pt", "settings.json"
_MOVED = ("src", "gt", "val", "init", "teacher")  # may lie elsewhere by now: what they hold is compared instead
_CONTENTS = {
    "trained_on": "other videos or photographs to train on",
    "validated_on": "others to validate on",
    "init_sha256": "another checkpoint for --init",
    "teacher_sha256": "another --teacher",
}


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: the one that is under way, from 1.
        step: how many steps of it are done.
        log_bytes: how long the log was then.
        best: the best NSS on the validation set, or None.
        states: the temporal states of the clips, which the next step goes on from: in memory those of this process's
            clips, on disk of all, in the order of the step's clips.
        best_hw: rows and columns of the network at which `best` was reached.
    """

    epoch: int = 1
    step: int = 0
    log_bytes: int = 0
    best: float | None = None
    states: tuple[Tensor, ...] | None = None
    best_hw: tuple[int, int] | None = None


def save_state(folder: Path, progress: Progress, parts: Mapping[str, Any]) -> None:
    """Writes the state, whole or not at all; `parts` are state dictionaries by name.

    Raises:
        OutputError: it can't be written.
    """
    _write(folder / STATE, _packed({"progress": vars(progress), **parts}))


def load_state(folder: Path, device: torch.device) -> tuple[Progress, dict[str, Any]] | None:
    """Reads the state back; None where a run has not come to its first.

    Raises:
        UsageError: it is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        parts: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        return Progress(**parts.pop("progress")), parts
    except Exception as error:  # a damaged file can fail anywhere in its reader
        raise UsageError(f"{path}: can't be read; begin another run, in another folder") from error


def in_step_order(gathered: Tensor, processes: int) -> Tensor:
    """Puts rows that were gathered process after process in the order of the step's clips.

    Process `r` of `P` has the clips `r`, `r + P`, `r + 2 P`, ...
    """
    own = gathered.reshape(processes, -1, *gathered.shape[1:])
    return own.transpose(0, 1).reshape(gathered.shape)


def save_checkpoint(path: Path, epoch: int, tensors: Mapping[str, Tensor], architecture: Architecture) -> None:
    """Writes a checkpoint in the published layout, with its architecture beside it for `salema-export`.

    Raises:
        OutputError: it can't be written.
    """
    _write(path, _packed({"epoch": epoch, "state_dict": dict(tensors), **stated_as(architecture)}))


def check_settings(folder: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Keeps the settings of a new run, or refuses to go on with others than it was begun with.

    Raises:
        UsageError: the folder holds a run and `resume` is not given, or the reverse; or the settings differ, or are
            damaged.
        OutputError: they can't be written.
    """
    path = folder / SETTINGS
    if not resume and any((folder / name).is_file() for name in (STATE, LAST, BEST)):
        raise UsageError(f"-o {folder}: holds a run; go on with it by --resume, or choose another folder")
    if not resume:  # a run that has left no state yet, for want of memory say, loses nothing
        make_folder(folder)
        _write(path, json.dumps(settings, indent=1).encode() + b"\n")
        return
    if not path.is_file():
        raise UsageError(f"--resume: {folder} holds no run; leave it out, or name the run's folder with -o")
    try:
        before = dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: can't be read; begin another run, in another folder") from error
    _check_same(folder, before, settings)


def _check_same(folder: Path, before: dict[str, Any], settings: dict[str, Any]) -> None:
    for name in sorted(set(before) & set(settings) - set(_MOVED)):
        if settings[name] == before[name]:
            continue
        if name in _CONTENTS:
            raise UsageError(f"--resume: the run in {folder} was begun with {_CONTENTS[name]}; name the same as then")
        raise UsageError(
            f"--resume: the run in {folder} was begun with {_typed(name, before[name])}, not"
            f" {_typed(name, settings[name])}; give its own options, or choose another folder"
        )


def _typed(name: str, value: Any) -> str:
    """Returns an option with its value, as one types them."""
    option = "imgsz" if name == "imgsz_hw" else name.replace("_", "-")
    if value is None or isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}" if value is False else f"no --{option}"
    return f"--{option} {' '.join(map(str, value)) if isinstance(value, list) else value}"


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Keeps a folder for one run at a time, where the system has locks.

    Raises:
        UsageError: another process trains in it.
    """
    if not has_locks() or not folder.is_dir():
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    _locked.add(descriptor)
    try:
        if lock_if_possible(descriptor) is False:
            raise UsageError(f"-o {folder}: another process trains in it; wait for its end, or stop it")
        yield
    finally:
        _locked.remove(descriptor)
        os.close(descriptor)


_locked: set[int] = set()


def _leave_locks() -> None:
    """Closes a forked process's copies, which would hold the locks after the end of the process that took them."""
    for descriptor in _locked:
        os.close(descriptor)


if has_locks():
    os.register_at_fork(after_in_child=_leave_locks)


def _packed(content: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Writes a file that a power cut does not lose either."""
    with written_aside(path, durable=True) as aside:
        aside.write_bytes(data)
