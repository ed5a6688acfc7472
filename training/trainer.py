"""The loop: clips in, steps of the optimiser, and at each epoch's end scores, checkpoints and pictures."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from salema.export.weights.architecture import Architecture
from salema.runtime.errors import SalemaError
from salema.runtime.wording import listed
from salema.training.data.batches import Batch, Batches, load_batches, workers_watched
from salema.training.data.clip import GazeSet
from salema.training.data.plan import Step, plan_epoch
from salema.training.log import Log
from salema.training.losses import frame_losses, weighted
from salema.training.network import ClipNetwork
from salema.training.optimiser import averaging, forget_gradients, frozen_at, make_optimiser, rate_at, set_rate
from salema.training.options import RunOptions
from salema.training.recipes import Recipe
from salema.training.state import BEST, LAST, Progress, in_step_order, load_state, save_state
from salema.training.teacher import Teacher


class TrainingError(SalemaError, RuntimeError):
    """A run that can't go on."""


@dataclass(frozen=True)
class Task:
    """What a run is to do, all choices made; `sources` are what its data, checkpoint and teacher hold, in hashes."""

    recipe: Recipe
    architecture: Architecture
    gaze: GazeSet
    held_out: GazeSet | None
    size_hw: tuple[int, int]
    folder: Path
    options: RunOptions
    teacher: Teacher | None = None
    sources: dict[str, str | None] = field(default_factory=dict)

    @property
    def last_epoch(self) -> int:
        """The epoch after which the run ends."""
        return min(self.recipe.epochs, self.options.until or self.recipe.epochs)


class Trainer:
    """Trains a network, from where the folder's state left off.

    `stop` ends the training after the step that is under way.

    Attributes:
        network: what is trained.
        averaged: the network that is scored and saved: the averaged one, where the recipe averages.
        progress: how far the run is.
        log: the run's log, of the first process; None in the others.
    """

    def __init__(self, accelerator: Accelerator, network: ClipNetwork, task: Task, stop: threading.Event) -> None:
        self._accelerator, self._task, self._stop = accelerator, task, stop
        self.network = network.to(accelerator.device)
        self._model, self._optimiser = accelerator.prepare(self.network, make_optimiser(self.network, task.recipe))
        self._average = None
        if task.recipe.average:
            self._average = AveragedModel(self.network, avg_fn=averaging(task.recipe.average))
        self.progress = self._restored()
        self.log = Log(task.folder, self.progress.log_bytes) if accelerator.is_main_process else None

    @property
    def averaged(self) -> ClipNetwork:
        """See the class."""
        return self.network if self._average is None else cast("ClipNetwork", self._average.module)

    def size_at(self, epoch: int) -> tuple[int, int]:
        """Returns the size that an epoch is trained at, rows and columns."""
        height, width = self._task.size_hw
        is_half = epoch <= self._task.recipe.half_size * self._task.recipe.epochs
        return (height // 2, width // 2) if is_half else (height, width)

    def plan(self, epoch: int) -> list[Step]:
        """Returns the steps of an epoch."""
        return plan_epoch(self._task.gaze, self._task.recipe, self._task.options.seed, epoch)

    def train_epoch(self, advance: Callable[[float], None]) -> None:
        """Trains the epoch that is under way to its end; `advance` takes the loss of each step.

        Raises:
            TrainingError: the loss is no number.
            KeyboardInterrupt: it was stopped; the state was saved.
            SalemaError: a file can't be read or written.
        """
        epoch, first = self.progress.epoch, self.progress.step
        steps, accelerator = self.plan(epoch), self._accelerator
        batches = Batches(
            self._task.gaze,
            steps,
            self.size_at(epoch),
            accelerator.process_index,
            accelerator.num_processes,
            augment=self._task.recipe.augment,
            taught=self._task.teacher.on_disk if self._task.teacher else None,
        )
        self._model.train()
        with workers_watched(self._task.options.workers):
            for batch in load_batches(batches, first, self._task.options.workers):
                is_stopped = self._step(batch, steps, advance)
                self.progress.step += 1
                if is_stopped:
                    self.save()
                    raise KeyboardInterrupt
                if self.progress.step % self._task.options.save_steps == 0:
                    self.save()

    def end_epoch(self) -> None:
        """Goes on to the next epoch, and saves the state."""
        self.progress.epoch, self.progress.step, self.progress.states = self.progress.epoch + 1, 0, None
        self.save()

    def rehearse(self) -> None:
        """Takes the gradients of a step at full size, if that comes only later, and throws them away.

        Raises:
            MemoryError, RuntimeError: there is not enough memory; better now than after the epochs at half size.
        """
        recipe, states = self._task.recipe, self.progress.states
        size_hw = self.size_at(self._task.last_epoch)
        if size_hw == self.size_at(self.progress.epoch):
            return
        rows = recipe.batch // self._accelerator.num_processes
        blank = torch.zeros(rows, recipe.clip_frames, *size_hw)
        nothing, frames = blank[:, :, 0, 0], torch.zeros(*blank.shape, 3, dtype=torch.uint8)
        taught = blank if self._task.teacher and self._task.teacher.on_disk else None
        seeds = torch.zeros(rows, dtype=torch.int64)
        self._model.train()
        self._backward(Batch(0, frames, blank, blank, nothing, nothing, seeds, goes_on=False, taught=taught))
        self._optimiser.zero_grad()
        self.progress.states = states

    def published(self) -> dict[str, Tensor]:
        """Returns the tensors of a checkpoint.

        Raises:
            TrainingError: some are no numbers; so they are not written over those of the epoch before.
        """
        tensors = self.averaged.published()
        broken = [key for key, value in tensors.items() if not value.isfinite().all()]
        if broken:
            raise self.failure(f"of {listed(broken)} some weights are no numbers")
        return tensors

    def failure(self, what: str) -> TrainingError:
        """Returns an error that says what is wrong in this epoch, and how to go on."""
        kept = next((path for name in (BEST, LAST) if (path := self._task.folder / name).is_file()), None)
        begin = f" --init {kept} and" if kept else ""
        return TrainingError(f"epoch {self.progress.epoch}: {what}; begin another run, with{begin} a lower --lr")

    def _step(self, batch: Batch, steps: list[Step], advance: Callable[[float], None]) -> bool:
        """Trains a step; returns whether some process was asked to stop."""
        done = (self.progress.epoch - 1) * len(steps) + self.progress.step
        share = rate_at(self._task.recipe, done, self._task.recipe.epochs * len(steps))
        set_rate(self._optimiser, share)
        self._optimiser.zero_grad()
        sums = self._backward(batch)
        is_stopped, is_known, loss = bool(sums.pop("stop")), bool(sums.pop("known")), float(sums["loss"])
        where = f"step {batch.number + 1} on {self._named(steps[batch.number])}"
        if not math.isfinite(loss):
            raise self.failure(f"the loss is {loss} in {where}")
        # Of a step of which nothing is known past gradients would move the weights on.
        norm = self._update(steps[batch.number], where) if is_known else 0.0
        if self.log is not None:
            self.log.add(self._record(batch, sums, norm, share))
        advance(loss)
        return is_stopped

    def _update(self, step: Step, where: str) -> float:
        """Moves the weights by their gradients; returns the norm of these."""
        forget_gradients(frozen_at(self.network, self._task.recipe, self.progress.epoch))
        norm = float(self._accelerator.clip_grad_norm_(self._model.parameters(), self._most(step.frames)))
        if not math.isfinite(norm) and self._accelerator.scaler is None:  # which skips such a step of FP16
            raise self.failure(f"the norm of the gradients is {norm} in {where}")
        self._optimiser.step()
        if self._average is not None:
            self._average.update_parameters(self.network)
        return norm

    def _backward(self, batch: Batch) -> dict[str, Tensor]:
        """Takes the gradients of a step, in parts if so wanted.

        Returns:
            The loss and its terms over all processes; under `known`, how many frames they are of, and under `stop`, how
            many processes were asked to stop.
        """
        count = min(self._task.options.accumulate, len(batch.seeds))
        rows = [slice(len(batch.seeds) * k // count, len(batch.seeds) * (k + 1) // count) for k in range(count)]
        sums: dict[str, Tensor] = {}
        after = []
        for part in rows:
            is_last = part is rows[-1]
            with nullcontext() if is_last else self._accelerator.no_sync(self._model):
                losses, states = self._losses(batch.part(part).to(self._accelerator.device), part)
                self._accelerator.backward(losses["loss"] * self._accelerator.num_processes)
            for name, loss in losses.items():
                sums[name] = sums.get(name, torch.zeros_like(loss)) + loss.detach()
            after.append(states)
        self.progress.states = tuple(torch.cat(parts) for parts in zip(*after, strict=True))
        sums["stop"] = torch.tensor(float(self._stop.is_set()), device=self._accelerator.device)
        return {name: self._accelerator.reduce(loss, "sum") for name, loss in sums.items()}

    def _losses(self, batch: Batch, rows: slice) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Returns the loss and its terms, this part's share of the step's, and the states, cut off from the past."""
        recipe, states = self._task.recipe, None
        if batch.goes_on and self.progress.states is not None:
            states = tuple(state[rows] for state in self.progress.states)
        maps, after = self._model(batch.frames, states, batch.seeds)
        maps = maps.float()
        terms = frame_losses(maps, batch.density, batch.fixations, recipe)
        known = batch.weights
        if self._task.teacher is not None:
            terms, known = self._task.teacher.mixed(maps, terms, batch, recipe)
        per_frame = {"loss": weighted(terms, recipe), **terms}
        counted = known.sum(1).clamp(min=1) if recipe.reduction == "mean" else torch.ones_like(known[:, 0])
        losses = {name: ((loss * known).sum(1) / counted).sum() / recipe.batch for name, loss in per_frame.items()}
        return {**losses, "known": known.sum()}, tuple(state.detach() for state in after)

    def _most(self, frames: int) -> float:
        recipe = self._task.recipe
        return recipe.clip_norm * (frames if recipe.reduction == "sum" else 1)

    def _named(self, step: Step) -> str:
        items = [item for item in step.items if item.frames]
        return ", ".join(f"{self._task.gaze.names[item.video]} from frame {item.start + 1}" for item in items)

    def _record(self, batch: Batch, sums: dict[str, Tensor], norm: float, share: float) -> dict[str, Any]:
        record = {"epoch": self.progress.epoch, "step": batch.number + 1}
        losses = {name: float(loss) for name, loss in sums.items()}
        coefficient = {} if self.network.alpha is None else {"coefficient": float(self.network.coefficient.detach())}
        return {**record, **losses, "gradient_norm": norm, "lr": self._task.recipe.lr * share, **coefficient}

    def save(self) -> None:
        """Saves the state to resume from. Every process must call it.

        Raises:
            OutputError: it can't be written.
        """
        states, processes = self.progress.states, self._accelerator.num_processes
        whole = None
        if states is not None:
            whole = tuple(in_step_order(self._accelerator.gather(state), processes).cpu() for state in states)
        if self.log is None:
            return
        self.log.keep()
        scaler = self._accelerator.scaler
        parts = {
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }
        saved = replace(self.progress, log_bytes=self.log.length, states=whole)
        save_state(self._task.folder, saved, parts)

    def close(self) -> None:
        """Closes the log."""
        if self.log is not None:
            self.log.close()

    def _restored(self) -> Progress:
        loaded = load_state(self._task.folder, self._accelerator.device) if self._task.options.resume else None
        if loaded is None:
            return Progress()
        progress, parts = loaded
        self.network.load_state_dict(parts["network"])
        self._optimiser.load_state_dict(parts["optimiser"])
        if self._average is not None:
            self._average.load_state_dict(parts["average"])
        if self._accelerator.scaler is not None and parts["scaler"] is not None:  # None: it was begun in FP32
            self._accelerator.scaler.load_state_dict(parts["scaler"])
        if progress.states is not None:
            rank, processes = self._accelerator.process_index, self._accelerator.num_processes
            progress.states = tuple(state[rank::processes] for state in progress.states)
        return progress
