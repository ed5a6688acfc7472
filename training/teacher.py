"""Distillation: a teacher's maps as a second thing to learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from salema.training.data.batches import Batch
from salema.training.data.clip import GazeSet
from salema.training.data.taught import TaughtMaps
from salema.training.initial import choose_alpha, choose_start
from salema.training.losses import frame_losses
from salema.training.network import ClipNetwork
from salema.training.recipes import Recipe


@dataclass(frozen=True)
class Teacher:
    """Maps that are the density to learn: of a network that is not trained, or on disk.

    Attributes:
        source: the network, on the device of the training, or the maps.
        share: its share of the loss, 0 to 1; of frames without ground truth the whole.
    """

    source: ClipNetwork | TaughtMaps
    share: float

    @property
    def on_disk(self) -> TaughtMaps | None:
        """The maps on disk, which come with the batches."""
        return self.source if isinstance(self.source, TaughtMaps) else None

    def mixed(
        self, maps: Tensor, terms: dict[str, Tensor], batch: Batch, recipe: Recipe
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Mixes the terms of the loss with those against the teacher's maps; returns them and the frames' weights.

        Args:
            maps: the student's `[N, T, H, W]`.
            terms: against the ground truth, `[N, T]`; the NSS stays the ground truth's.
            batch: the clips; each begins anew for the teacher.
            recipe: the weights of the terms.
        """
        own = frame_losses(maps, self._maps(batch), batch.fixations, recipe)
        share = torch.where(batch.weights > 0, self.share, torch.ones_like(batch.weights))
        mixed = {name: (1 - share) * term + share * own[name] for name, term in terms.items() if name != "nss"}
        if "nss" in terms:
            mixed["nss"] = (1 - share) * terms["nss"]
        return mixed, batch.real

    @torch.no_grad()
    def _maps(self, batch: Batch) -> Tensor:
        if isinstance(self.source, TaughtMaps):
            assert batch.taught is not None
            return batch.taught
        maps, _ = self.source(batch.frames, None, batch.seeds)
        low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
        scaled: Tensor = (maps - low) / (high - low).clamp(min=1e-8)
        return scaled


def open_teacher(
    source: str, share: float, gaze: GazeSet, device: torch.device, say: Callable[[str], None]
) -> tuple[Teacher, str | None]:
    """Opens a teacher: a checkpoint, whose SHA-256 it returns too, or a folder of maps.

    `share` is its share of the loss. Each frame of `gaze` must have a map in the folder.

    Raises:
        CheckpointError: see `load_checkpoint`.
        MapError: a map is missing.
    """
    if Path(source).is_dir():
        return Teacher(TaughtMaps(Path(source), gaze), share), None
    start = choose_start(source, "auto", Fraction(1), 0, lambda _: None)
    alpha, fixed = choose_alpha("learned", start, "default")
    network = ClipNetwork(start.architecture, start.weights, alpha, fixed, 0.0).eval()
    what = f", {float(network.coefficient.detach()):.4g} of the new frame" if alpha is not None else ""
    say(f"teacher       {start.architecture.name}{what}, SHA-256 {start.sha256}")
    return Teacher(network.requires_grad_(requires_grad=False).to(device), share), start.sha256
