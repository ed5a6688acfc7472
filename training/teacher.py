"""Distillation: a teacher's maps as a second thing to learn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from salema.training.data.batches import Batch
from salema.training.data.taught import TaughtMaps
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
