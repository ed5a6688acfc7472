"""Distillation: the maps of a wider network as a second thing to learn from."""

from __future__ import annotations

import torch
from torch import Tensor

from salema.training.data.batches import Batch
from salema.training.losses import frame_losses
from salema.training.network import ClipNetwork
from salema.training.recipes import Recipe


class Teacher:
    """A network that is not trained, whose maps are the density to learn.

    Args:
        network: in `eval()`, on the device of the training.
        share: its share of the loss, 0 to 1; of frames without ground truth the whole.
    """

    def __init__(self, network: ClipNetwork, share: float) -> None:
        self._network, self._share = network.eval().requires_grad_(requires_grad=False), share

    def to(self, device: torch.device) -> Teacher:
        """Moves the network to a device."""
        self._network.to(device)
        return self

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
        with torch.no_grad():
            wanted, _ = self._network(batch.frames, None, batch.seeds)
        low, high = wanted.amin((2, 3), keepdim=True), wanted.amax((2, 3), keepdim=True)
        wanted = (wanted - low) / (high - low).clamp(min=1e-8)
        own = frame_losses(maps, wanted, batch.fixations, recipe)
        share = torch.where(batch.weights > 0, self._share, torch.ones_like(batch.weights))
        mixed = {name: (1 - share) * term + share * own[name] for name, term in terms.items() if name != "nss"}
        if "nss" in terms:
            mixed["nss"] = (1 - share) * terms["nss"]
        return mixed, batch.real
