"""A whole run: what was asked for put together, trained epoch by epoch, and left in a folder."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from salema.export.weights.architecture import DEFAULT_ALPHA, MULTIPLE, Architecture
from salema.runtime.errors import UsageError
from salema.runtime.files.whole_files import make_folder, write_bytes
from salema.runtime.output.recovery import remove_unfinished
from salema.training.card import write_card
from salema.training.data.choose import choose_data
from salema.training.data.clip import GazeSet
from salema.training.data.taught import TaughtMaps
from salema.training.initial import choose_start, of_arch, parse_width
from salema.training.log import draw_curves
from salema.training.network import ClipNetwork
from salema.training.options import DataOptions, NetworkOptions, RunOptions
from salema.training.recipes import Recipe, choose_recipe, first_alpha
from salema.training.state import BEST, LAST, check_settings, save_checkpoint
from salema.training.teacher import Teacher
from salema.training.trainer import Task, Trainer
from salema.training.validation import means, overlays, validate

SAMPLES = "samples"
_SHOWN = 6  # overlays of an epoch
_PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
Say = Callable[[str], None]


class Progressing(Protocol):
    """Shows how far a run is."""

    def begun(self, epoch: int, steps: int, done: int) -> None:
        """Begins an epoch of so many steps, some of which are done already."""

    def advance(self, loss: float) -> None:
        """Counts a step."""


@dataclass(frozen=True)
class Request:
    """All options of a run: which recipe, its choices that were given, and the rest."""

    recipe: str
    given: Recipe
    data: DataOptions
    network: NetworkOptions
    run: RunOptions


def train(request: Request, say: Say, bar: Progressing, stop: threading.Event) -> Path | None:
    """Trains a network, or goes on with a run.

    Args:
        request: what to do.
        say: takes a line on each step.
        bar: shows progress.
        stop: ends the run after the step that is under way.

    Returns:
        The run's folder; None in all processes but the first.

    Raises:
        SalemaError: an option is wrong, a file can't be read or written, or the loss is no number.
        KeyboardInterrupt: it was stopped; `--resume` goes on.
    """
    folder = request.run.output
    accelerator = _accelerator(request.run)
    own_say = say if accelerator.is_main_process else lambda _: None
    task, network = _prepare(request, accelerator, own_say)
    if accelerator.is_main_process:
        check_settings(folder, settings(request, task), resume=request.run.resume)
        for note in remove_unfinished(folder):
            say(note)
    accelerator.wait_for_everyone()
    with closing(Trainer(accelerator, network, task, stop)) as trainer:
        while trainer.progress.epoch <= task.last_epoch:
            bar.begun(trainer.progress.epoch, len(trainer.plan(trainer.progress.epoch)), trainer.progress.step)
            trainer.train_epoch(bar.advance)
            _end_epoch(trainer, accelerator, task, own_say)
    if not accelerator.is_main_process:
        return None
    write_card(folder, settings(request, task), task)
    return folder


def _prepare(request: Request, accelerator: Accelerator, say: Say) -> tuple[Task, ClipNetwork]:
    recipe = choose_recipe(request.recipe, request.given, request.data.dataset)
    if recipe.batch % accelerator.num_processes:
        raise UsageError(f"--batch {recipe.batch}: must be a multiple of the {accelerator.num_processes} processes")
    _check_size(request.network.imgsz_hw, recipe)
    gaze, held_out = choose_data(request.data, say)
    count = len(held_out.names) if held_out else 0
    say(f"data          {gaze.name}: {len(gaze.names)} to train on, {count} to validate on")
    choices = request.network
    architecture, weights, learned = choose_start(
        choices.init, choices.arch, parse_width(choices.width), request.run.seed, say
    )
    alpha, fixed = _alpha(choices.alpha, architecture, learned, request.recipe)
    try:
        network = ClipNetwork(architecture, weights, alpha, fixed, recipe.dropout)
    except UsageError as error:
        raise of_arch(choices.arch, error) from error
    say(f"network       {architecture.name}, {sum(value.numel() for value in weights.values()):,} parameters")
    task = Task(
        recipe,
        architecture,
        gaze,
        held_out,
        choices.imgsz_hw,
        request.run.output,
        request.run,
        _teacher(choices, gaze, accelerator.device, say),
    )
    return task, network


def _check_size(size_hw: tuple[int, int], recipe: Recipe) -> None:
    least = MULTIPLE * (2 if recipe.half_size else 1)
    if any(size < least or size % least for size in size_hw):
        half = " (half of it must be a multiple too: --half-size 0 lifts that)" if recipe.half_size else ""
        raise UsageError(f"--imgsz {size_hw[0]} {size_hw[1]}: both must be multiples of {least}{half}")


def _alpha(text: str, architecture: Architecture, learned: float | None, recipe: str) -> tuple[float | None, float]:
    """Settles the coefficient: the learned one before its sigmoid, or None, and the fixed one."""
    if text == "learned":
        begins = first_alpha(recipe) if learned is None else learned
        return (begins if architecture.kind == "salema" else None), DEFAULT_ALPHA
    try:
        fixed = float(text)
    except ValueError:
        fixed = math.nan
    if not 0 < fixed <= 1:
        raise UsageError(f"--alpha {text}: not 'learned', and not a number in (0, 1]")
    if architecture.kind != "salema":
        raise UsageError(
            f"--alpha {text}: is the coefficient of an average, and {architecture.name} has none; leave it out"
        )
    return None, fixed


def _teacher(choices: NetworkOptions, gaze: GazeSet, device: torch.device, say: Say) -> Teacher | None:
    if choices.teacher is None:
        return None
    if Path(choices.teacher).is_dir():
        return Teacher(TaughtMaps(Path(choices.teacher), gaze), choices.teacher_share)
    architecture, weights, learned = choose_start(choices.teacher, "auto", Fraction(1), 0, say)
    alpha, fixed = _alpha("learned", architecture, learned, "default")
    network = ClipNetwork(architecture, weights, alpha, fixed, 0.0).eval().requires_grad_(requires_grad=False)
    return Teacher(network.to(device), choices.teacher_share)


def _accelerator(run: RunOptions) -> Accelerator:
    if run.precision not in _PRECISIONS:
        raise UsageError(f"--precision {run.precision}: not one of {', '.join(_PRECISIONS)}")
    if run.device not in {"auto", "cpu", "cuda"}:
        raise UsageError(f"--device {run.device}: not one of auto, cpu, cuda")
    if run.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch sees no GPU here; leave it out to train on the CPU")
    return Accelerator(cpu=run.device == "cpu", mixed_precision=_PRECISIONS[run.precision])


def _end_epoch(trainer: Trainer, accelerator: Accelerator, task: Task, say: Say) -> None:
    """Scores, saves and shows what an epoch has brought."""
    epoch = trainer.progress.epoch
    is_shown = epoch == task.last_epoch or epoch % task.options.validate_every == 0
    is_best = is_shown and task.held_out is not None and _score(trainer, accelerator, task, say)
    if accelerator.is_main_process:
        tensors = trainer.averaged.published()
        for name in (LAST, *((BEST,) if is_best else ())):
            save_checkpoint(task.folder / name, epoch, tensors, task.architecture)
        if is_shown:
            _show(trainer, task, epoch)
            draw_curves(task.folder)
    trainer.end_epoch()


def _score(trainer: Trainer, accelerator: Accelerator, task: Task, say: Say) -> bool:
    """Scores the network on what is held out; returns whether it is the best so far, by its NSS (or CC)."""
    epoch, scores = trainer.progress.epoch, _scores(trainer, accelerator, task)
    if trainer.log is not None:
        trainer.log.add({"epoch": epoch, "scores": scores})
        known = (f"{name} {value:.4f}" for name, value in scores.items() if value is not None)
        say(f"epoch {epoch:<8d}{'  '.join(known)}")
    score, before = scores["cc"] if scores["nss"] is None else scores["nss"], trainer.progress.best
    if score is None or (before is not None and score <= before):
        return False
    trainer.progress.best = score
    return True


def _scores(trainer: Trainer, accelerator: Accelerator, task: Task) -> dict[str, float | None]:
    assert task.held_out is not None
    own = range(accelerator.process_index, len(task.held_out.names), accelerator.num_processes)
    scored = validate(trainer.averaged, task.held_out, trainer.size_at(trainer.progress.epoch), own)
    every = dict(gather_object(list(scored.items()))) if accelerator.num_processes > 1 else scored
    return means([every[video] for video in sorted(every)])


def _show(trainer: Trainer, task: Task, epoch: int) -> None:
    gaze = task.held_out or task.gaze
    videos = np.linspace(0, len(gaze.names) - 1, min(_SHOWN, len(gaze.names))).astype(int).tolist()
    pictures = overlays(trainer.averaged, gaze, trainer.size_at(epoch), videos)
    make_folder(task.folder / SAMPLES)
    encoded = cv2.imencode(".jpg", np.hstack(pictures))[1]
    write_bytes(task.folder / SAMPLES / f"epoch_{epoch:03d}.jpg", encoded.tobytes())


def settings(request: Request, task: Task) -> dict[str, Any]:
    """Returns what decides a run's result, by name: a run goes on with the same only."""
    data = {name: None if value is None else str(value) for name, value in asdict(request.data).items()}
    network = {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(request.network).items()
    }
    return {**data, **network, "recipe": request.recipe, **asdict(task.recipe), "seed": request.run.seed}
