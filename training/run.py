"""A whole run: what was asked for put together, trained epoch by epoch, and left in a folder."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object

from salema.export.weights.architecture import MULTIPLE
from salema.runtime.errors import ModelError, UsageError
from salema.runtime.files.whole_files import make_folder, write_bytes
from salema.runtime.output.recovery import remove_unfinished
from salema.runtime.wording import counted
from salema.training.card import write_card
from salema.training.data.choose import choose_data
from salema.training.data.clip import digest_of
from salema.training.initial import SEEDED, Start, choose_alpha, choose_start, of_arch, parse_width
from salema.training.log import draw_curves
from salema.training.network import ClipNetwork
from salema.training.options import DataOptions, NetworkOptions, RunOptions
from salema.training.recipes import Recipe, choose_recipe
from salema.training.state import BEST, LAST, check_settings, save_checkpoint, sole_run
from salema.training.teacher import open_teacher
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
    """Trains a network, or goes on with a run; returns its folder, None in all processes but the first.

    `say` takes a line on each step. `stop` ends the run after the step, or the frame of a validation, that is under
    way.

    Raises:
        SalemaError: an option is wrong, a file can't be read or written, or the loss is no number.
        KeyboardInterrupt: it was stopped; `--resume` goes on.
    """
    folder = request.run.output
    accelerator = _accelerator(request.run)
    own_say = say if accelerator.is_main_process else lambda _: None
    task, network = _prepare(request, accelerator, own_say)
    with ExitStack() as stack:
        if accelerator.is_main_process:
            if not request.run.resume:
                make_folder(folder)
            stack.enter_context(sole_run(folder))
            check_settings(folder, settings(request, task), resume=request.run.resume)
            for note in remove_unfinished(folder):
                say(note)
        accelerator.wait_for_everyone()
        trainer = stack.enter_context(closing(Trainer(accelerator, network, task, stop)))
        _tell_coefficient(trainer.network, own_say)
        trainer.rehearse()
        while trainer.progress.epoch <= task.last_epoch:
            bar.begun(trainer.progress.epoch, len(trainer.plan(trainer.progress.epoch)), trainer.progress.step)
            trainer.train_epoch(bar.advance)
            _end_epoch(trainer, task, own_say, stop)
        if accelerator.is_main_process:
            write_card(folder, settings(request, task), task, _facts(accelerator, request.run))
    return folder if accelerator.is_main_process else None


def _prepare(request: Request, accelerator: Accelerator, say: Say) -> tuple[Task, ClipNetwork]:
    recipe = choose_recipe(request.recipe, request.given, request.data.dataset)
    choices, run = request.network, request.run
    _check_step(recipe, run, accelerator.num_processes)
    _check_size(choices.imgsz_hw, recipe)
    _check_teacher(choices.teacher, recipe)
    gaze, held_out = choose_data(request.data, say, unlabelled=choices.teacher is not None)
    count = len(held_out.names) if held_out else 0
    say(f"data          {gaze.name}: {len(gaze.names)} to train on, {count} to validate on")
    start = choose_start(choices.init, choices.arch, parse_width(choices.width), run.seed, say, averaged=True)
    network = _network(request, recipe, start, say)
    teacher, teacher_sha256 = None, None
    if choices.teacher is not None:
        teacher, teacher_sha256 = open_teacher(choices.teacher, choices.teacher_share, gaze, accelerator.device, say)
    sources = {
        "trained_on": digest_of(gaze),
        "validated_on": digest_of(held_out) if held_out else None,
        "init_sha256": start.sha256,
        "teacher_sha256": teacher_sha256,
    }
    size_hw = choices.imgsz_hw
    task = Task(recipe, start.architecture, gaze, held_out, size_hw, run.output, run, teacher, sources)
    return task, network


def _network(request: Request, recipe: Recipe, start: Start, say: Say) -> ClipNetwork:
    choices = request.network
    if request.given.dropout and start.architecture.kind != "salema":
        raise UsageError(
            f"--dropout {request.given.dropout:g}: drops what enters an average, and {start.architecture.name} has"
            " none; leave it out"
        )
    if request.recipe == "paper" and choices.init == SEEDED and not request.given.lr:
        say(
            f"note: --recipe paper goes on from trained weights, such as --init SalBCE.pt; at its rate of {recipe.lr:g}"
            " drawn ones learn next to nothing"
        )
    alpha, fixed = choose_alpha(choices.alpha, start, request.recipe)
    try:
        network = ClipNetwork(start.architecture, start.weights, alpha, fixed, recipe.dropout)
    except UsageError as error:
        raise of_arch(choices.arch, error) from error
    count = sum(value.numel() for value in start.weights.values())
    say(f"network       {start.architecture.name}, {count:,} parameters")
    return network


def _tell_coefficient(network: ClipNetwork, say: Say) -> None:
    if network.step.architecture.kind == "salema":
        how = "fixed" if network.alpha is None else "learned from here on"
        say(f"coefficient   {float(network.coefficient.detach()):.4g} of the new frame, {how}")


def _check_step(recipe: Recipe, run: RunOptions, processes: int) -> None:
    if recipe.batch % processes:
        raise UsageError(f"--batch {recipe.batch}: must be a multiple of the {processes} processes")
    most = recipe.batch // processes
    if run.accumulate > most:
        each = " of each process" if processes > 1 else ""
        clips = counted(most, "clip")
        raise UsageError(f"--accumulate {run.accumulate}: a step{each} has {clips}; give {most} or less")


def _check_teacher(teacher: str | None, recipe: Recipe) -> None:
    if teacher is not None and not any((recipe.bce, recipe.kld, recipe.cc)):
        raise UsageError(
            "--teacher: its maps are learned by --bce, --kld and --cc, which are all 0; give one of them a weight"
        )


def _check_size(size_hw: tuple[int, int], recipe: Recipe) -> None:
    least = MULTIPLE * (2 if recipe.half_size else 1)
    if any(size < least or size % least for size in size_hw):
        half = " (half of it must be a multiple too: --half-size 0 lifts that)" if recipe.half_size else ""
        raise UsageError(f"--imgsz {size_hw[0]} {size_hw[1]}: both must be multiples of {least}{half}")


def _accelerator(run: RunOptions) -> Accelerator:
    if run.precision not in _PRECISIONS:
        raise UsageError(f"--precision {run.precision}: not one of {', '.join(_PRECISIONS)}")
    if run.device not in {"auto", "cpu", "cuda"}:
        raise UsageError(f"--device {run.device}: not one of auto, cpu, cuda")
    has_gpu = torch.cuda.is_available()
    if run.device == "cuda" and not has_gpu:
        raise UsageError("--device cuda: PyTorch sees no GPU here; leave it out to train on the CPU")
    if run.precision == "fp16" and (run.device == "cpu" or not has_gpu):
        raise UsageError("--precision fp16: is for a GPU; take fp32 or bf16 on a CPU")
    return Accelerator(cpu=run.device == "cpu", mixed_precision=_PRECISIONS[run.precision])


def _facts(accelerator: Accelerator, run: RunOptions) -> str:
    """Returns what a run ran on, and how, for its card."""
    device, processes = accelerator.device, accelerator.num_processes
    return (
        f"precision {run.precision} on {torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type},"
        f" {processes} process{'es' if processes > 1 else ''}, each step in {counted(run.accumulate, 'part')},"
        f" accelerate {version('accelerate')}"
    )


def _end_epoch(trainer: Trainer, task: Task, say: Say, stop: threading.Event) -> None:
    """Scores, saves and shows what an epoch has brought."""
    epoch = trainer.progress.epoch
    is_shown = epoch == task.last_epoch or epoch % task.options.validate_every == 0
    tensors = trainer.published()
    is_best = False
    if is_shown and task.held_out is not None:
        trainer.save()  # scoring can take long, and be stopped
        is_best = _score(trainer, task, say, stop)
    if trainer.log is not None:
        for name in (LAST, *((BEST,) if is_best else ())):
            save_checkpoint(task.folder / name, epoch, tensors, task.architecture)
        if is_shown:
            _show(trainer, task, epoch)
            draw_curves(task.folder)
    trainer.end_epoch()


def _score(trainer: Trainer, task: Task, say: Say, stop: threading.Event) -> bool:
    """Scores the network on what is held out; returns whether it is the best so far, by its NSS (or CC).

    Scores of epochs at half size are not held against those at full size: at half they are lower for that alone.
    """
    progress = trainer.progress
    size_hw, scores = trainer.size_at(progress.epoch), _scores(trainer, task, stop)
    if trainer.log is not None:
        trainer.log.add({"epoch": progress.epoch, "size": list(size_hw), "scores": scores})
        known = (f"{name} {value:.4f}" for name, value in scores.items() if value is not None)
        say(f"epoch {progress.epoch:<8d}{'  '.join(known)}")
    score = scores["cc"] if scores["nss"] is None else scores["nss"]
    before = progress.best if progress.best_hw in {None, size_hw} else None
    if score is None or (before is not None and score <= before):
        return False
    progress.best, progress.best_hw = score, size_hw
    return True


def _scores(trainer: Trainer, task: Task, stop: threading.Event) -> dict[str, float | None]:
    """Scores what is held out, shared among the processes.

    Raises:
        KeyboardInterrupt: one of the processes was stopped.
        TrainingError: the network gives no numbers.
    """
    assert task.held_out is not None
    size_hw = trainer.size_at(trainer.progress.epoch)
    own = range(len(task.held_out.names))[PartialState().process_index :: PartialState().num_processes]
    try:
        scored = validate(trainer.averaged, task.held_out, size_hw, own, task.options.score_every, stop)
    except ModelError as error:
        raise trainer.failure(str(error)) from error
    gathered = gather_object([(scored, stop.is_set())])
    if any(is_stopped for _, is_stopped in gathered):
        raise KeyboardInterrupt
    every = {video: score for scores, _ in gathered for video, score in scores.items()}
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
    own = {"recipe": request.recipe, **asdict(task.recipe), "seed": request.run.seed}
    return {**data, **network, **own, **task.sources}
