"""The clips of a step as tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from salema.training.data.clip import Clip, GazeSet
from salema.training.data.plan import Item, Step
from salema.training.data.taught import TaughtMaps

_FIELDS = ("frames", "density", "fixations")
_CHANNELS = 3


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


class Batches(Dataset[Batch]):
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

    def __getitem__(self, number: int) -> Batch:
        step = self._steps[number]
        items = step.items[self._rank :: self._processes]
        clips = [self._filled(item, step.frames) for item in items]
        tensors = {
            name: torch.from_numpy(np.stack([getattr(clip, name) for clip in clips])) for name in (*_FIELDS, "weights")
        }
        real = torch.tensor([[float(frame < item.frames) for frame in range(step.frames)] for item in items])
        seeds = torch.tensor([item.seed for item in items])
        return Batch(number, **tensors, real=real, seeds=seeds, goes_on=step.goes_on, taught=self._maps(clips))

    def _maps(self, clips: Sequence[Clip]) -> Tensor | None:
        if self._taught is None:
            return None
        maps = [self._taught.of(clip.shots, self._size_hw) if clip.shots else clip.density for clip in clips]
        return torch.from_numpy(np.stack(maps))

    def _filled(self, item: Item, frames: int) -> Clip:
        """Makes a clip, and repeats its last frame, with weight 0, until it is long enough."""
        if not item.frames:
            blank = np.zeros((frames, *self._size_hw), np.float32)
            pixels = np.zeros((*blank.shape, _CHANNELS), np.uint8)
            return Clip(pixels, blank, blank, np.zeros(frames, np.float32), ())
        rng = np.random.default_rng(item.seed) if self._augment else None
        clip = self._gaze.clip(item.video, item.start, item.frames, self._size_hw, rng)
        missing = frames - len(clip.frames)
        if not missing:
            return clip
        rows = np.r_[: len(clip.frames), [len(clip.frames) - 1] * missing]
        weights = np.pad(clip.weights, (0, missing))
        shots = tuple(clip.shots[row] for row in rows)
        return Clip(clip.frames[rows], clip.density[rows], clip.fixations[rows], weights, shots)


def load_batches(batches: Batches, first: int, workers: int) -> DataLoader[Batch]:
    """Returns the batches from step `first` on, made ahead by worker processes if there are any."""
    return DataLoader(
        batches, batch_size=None, sampler=range(first, len(batches)), num_workers=workers, pin_memory=False
    )
