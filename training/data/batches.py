"""The clips of a step as tensors."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from salema.runtime.errors import SalemaError
from salema.training.data.clip import Clip, GazeSet
from salema.training.data.plan import Item, Step
from salema.training.data.taught import TaughtMaps

_FIELDS = ("frames", "density", "fixations")
_CHANNELS = 3


class WorkerError(SalemaError, RuntimeError):
    """A process that reads ahead has ended before its work."""


@dataclass(frozen=True)
class Batch:
    """Clips of one process, filled up to one length with frames of weight 0.

    Attributes:
        number: the step's, in its epoch, from 0.
        frames: uint8 BGR `[N, T, H, W, 3]`.
        density: float32 `[N, T, H, W]`, 0 to 1.
        fixations: float32 `[N, T, H, W]`, how many on each pixel.
        weights: float32 `[N, T]`: 1 where it is known where people looked, else 0.
        real: float32 `[N, T]`: 1 for the clips' own frames, 0 for those that fill them up.
        seeds: int64 `[N]`.
        goes_on: whether the clips continue those of the step before.
        taught: the maps of a teacher on disk, float32 `[N, T, H, W]`, 0 to 1; None where there is none.
    """

    number: int
    frames: Tensor
    density: Tensor
    fixations: Tensor
    weights: Tensor
    real: Tensor
    seeds: Tensor
    goes_on: bool
    taught: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Returns the batch on a device; seeds stay where they are."""
        moved = self._changed(lambda tensor: tensor.to(device, non_blocking=True))
        return replace(moved, seeds=self.seeds)

    def part(self, rows: slice) -> Batch:
        """Returns some of the clips."""
        return self._changed(lambda tensor: tensor[rows])

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        changed: dict[str, Any] = {name: change(value) for name, value in tensors.items()}
        return replace(self, **changed)


class Batches(Dataset[Batch | SalemaError]):
    """The steps of an epoch for one of several processes, which share each step's clips evenly."""

    def __init__(
        self,
        gaze: GazeSet,
        steps: Sequence[Step],
        size_hw: tuple[int, int],
        rank: int,
        processes: int,
        *,
        augment: bool,
        taught: TaughtMaps | None = None,
    ) -> None:
        self._taught = taught
        self._gaze, self._steps, self._size_hw = gaze, steps, size_hw
        self._rank, self._processes, self._augment = rank, processes, augment

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, number: int) -> Batch | SalemaError:
        """Returns a step's clips, or why they can't be read: PyTorch changes an error that a worker raises."""
        try:
            return self._batch(number)
        except SalemaError as error:
            return error

    def _batch(self, number: int) -> Batch:
        step = self._steps[number]
        items = step.items[self._rank :: self._processes]
        found = [self._clip(item) for item in items]
        real = torch.tensor([[float(frame < len(clip.frames)) for frame in range(step.frames)] for clip in found])
        clips = [_filled(clip, step.frames) for clip in found]
        tensors = {
            name: torch.from_numpy(np.stack([getattr(clip, name) for clip in clips])) for name in (*_FIELDS, "weights")
        }
        seeds = torch.tensor([item.seed for item in items])
        return Batch(number, **tensors, real=real, seeds=seeds, goes_on=step.goes_on, taught=self._maps(clips))

    def _maps(self, clips: Sequence[Clip]) -> Tensor | None:
        if self._taught is None:
            return None
        maps = [self._taught.of(clip.shots, self._size_hw) if clip.shots else clip.density for clip in clips]
        return torch.from_numpy(np.stack(maps))

    def _clip(self, item: Item) -> Clip:
        if not item.frames:
            return Clip.nothing(self._size_hw)
        rng = np.random.default_rng(item.seed) if self._augment else None
        return self._gaze.clip(item.video, item.start, item.frames, self._size_hw, rng)


def _filled(clip: Clip, frames: int) -> Clip:
    """Repeats a clip's last frame, with weight 0, until it is long enough; one without frames shows black."""
    missing = frames - len(clip.frames)
    if not missing:
        return clip
    weights = np.pad(clip.weights, (0, missing))
    if not len(clip.frames):
        blank = np.zeros((frames, *clip.density.shape[1:]), np.float32)
        return Clip(np.zeros((*blank.shape, _CHANNELS), np.uint8), blank, blank, weights, ())
    rows = np.r_[: len(clip.frames), [len(clip.frames) - 1] * missing]
    shots = tuple(clip.shots[row] for row in rows)
    return Clip(clip.frames[rows], clip.density[rows], clip.fixations[rows], weights, shots)


def load_batches(batches: Batches, first: int, workers: int) -> Iterator[Batch]:
    """Yields the batches from step `first` on, made ahead by worker processes if there are any.

    Raises:
        SalemaError: a file can't be read.
    """
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, len(batches)),
        num_workers=workers,
        worker_init_fn=_outlast_signals,
    )
    for batch in loader:
        if isinstance(batch, SalemaError):
            raise batch
        yield batch


def _outlast_signals(_worker: int) -> None:
    """Leaves it to the main process to end a worker: a signal that asks all processes for the end comes to both."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@contextmanager
def workers_watched(workers: int) -> Iterator[None]:
    """Makes a sentence of PyTorch's error on a worker that was ended: a signal handler raises it, whatever goes on.

    Raises:
        WorkerError: one was ended.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise WorkerError(
            f"--workers {workers}: one of them was ended, probably for want of memory (in containers also of /dev/shm);"
            " go on with --resume and fewer of them, or 0"
        ) from error
