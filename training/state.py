"""What a run leaves on disk to go on from, and the checkpoints that it is for."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salema.export.weights.architecture import Architecture
from salema.export.weights.checkpoint_files import stated_as
from salema.runtime.errors import UsageError
from salema.runtime.files.whole_files import make_folder, write_bytes

STATE, LAST, BEST, SETTINGS = "state.pt", "last.pt", "best.pt", "settings.json"


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: the one that is under way, from 1.
        step: how many steps of it are done.
        log_bytes: how long the log was then.
        best: the best NSS on the validation set, or None.
        states: the temporal states of this process's clips, which the next step goes on from.
    """

    epoch: int = 1
    step: int = 0
    log_bytes: int = 0
    best: float | None = None
    states: tuple[Tensor, ...] | None = None


def save_state(folder: Path, progress: Progress, parts: Mapping[str, Any]) -> None:
    """Writes the state, whole or not at all; `parts` are state dictionaries by name.

    Raises:
        OutputError: it can't be written.
    """
    write_bytes(folder / STATE, _packed({"progress": vars(progress), **parts}))


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


def save_checkpoint(path: Path, epoch: int, tensors: Mapping[str, Tensor], architecture: Architecture) -> None:
    """Writes a checkpoint in the published layout, with its architecture beside it for `salema-export`.

    Raises:
        OutputError: it can't be written.
    """
    write_bytes(path, _packed({"epoch": epoch, "state_dict": dict(tensors), **stated_as(architecture)}))


def check_settings(folder: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Keeps the settings of a new run, or refuses to go on with others than it was begun with.

    Raises:
        UsageError: the folder holds a run and `resume` is not given, or the reverse; or the settings differ.
        OutputError: they can't be written.
    """
    path = folder / SETTINGS
    if path.is_file() != resume:
        raise UsageError(
            f"--resume: {folder} holds no run; leave it out, or name the run's folder with -o"
            if resume
            else f"-o {folder}: holds a run; go on with it by --resume, or choose another folder"
        )
    if not resume:
        make_folder(folder)
        write_bytes(path, json.dumps(settings, indent=1).encode() + b"\n")
        return
    before = json.loads(path.read_text("utf-8"))
    changed = sorted(name for name in settings if settings[name] != before.get(name))
    if changed:
        name = changed[0]
        raise UsageError(
            f"--resume: the run in {folder} was begun with {name} {before.get(name)}, not {settings[name]};"
            " give its own options, or choose another folder"
        )


def _packed(content: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()
