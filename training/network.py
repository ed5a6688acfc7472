"""The network as it is trained: a whole clip at a time, with the state carried from frame to frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from salema.export.graph.models import SaliencyStep
from salema.export.weights.architecture import Architecture

States = tuple[Tensor, ...]


class ClipNetwork(nn.Module):
    """Runs clips through one network, each with a state of its own.

    Args:
        architecture: the variant.
        weights: tensors by published key, without `alpha`.
        alpha: the learned coefficient before its sigmoid; None where it is fixed or there is none.
        coefficient: the fixed weight of the new frame, where `alpha` is None.
        dropout: the chance that a channel that enters an averaged layer is dropped, anew for each frame. It obeys
            `eval()`, which the published code does not.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: Mapping[str, Tensor],
        alpha: float | None,
        coefficient: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.step = _DroppingStep(architecture, weights, dropout)
        self.alpha = None if alpha is None else nn.Parameter(torch.tensor([alpha]))
        self._coefficient = coefficient

    @property
    def coefficient(self) -> Tensor:
        """The weight of the new frame, float32 of shape `(1,)`."""
        if self.alpha is not None:
            return self.alpha.sigmoid()
        return torch.tensor([self._coefficient], device=self.step.device)

    def forward(self, frames: Tensor, states: States | None, seeds: Tensor) -> tuple[Tensor, States]:
        """Runs every frame of the clips.

        Args:
            frames: uint8 BGR `[N, T, H, W, 3]`.
            states: those after the clips before, in the order of `SaliencyStep.state_specs`; None at the start of
                the videos, where an average takes its first frame as it is and an LSTM starts from zeros.
            seeds: int64 `[N]`: each clip's dropout depends on its own alone.

        Returns:
            The maps `[N, T, H, W]` float32, 0 to 1, and the states after the last frame.
        """
        maps = []
        fresh = 1 + 0 * self.coefficient  # so that in a clip of one frame, too, alpha has a gradient, as DDP wants
        with self.step.seeded(seeds):
            for index in range(frames.shape[1]):
                mix = fresh if states is None else self.coefficient
                before = self._zeros(frames) if states is None else states
                saliency, *after = self.step(frames[:, index], *before, *self._mixes(mix, len(frames)))
                states = tuple(after)
                maps.append(saliency[:, 0])
        return torch.stack(maps, 1), states or ()

    def _mixes(self, mix: Tensor, count: int) -> tuple[Tensor, ...]:
        return (mix.expand(count),) if self.step.architecture.kind == "salema" else ()

    def _zeros(self, frames: Tensor) -> States:
        specs = self.step.state_specs(frames.shape[2], frames.shape[3])
        return tuple(torch.zeros(len(frames), *spec.shape_chw, device=frames.device) for spec in specs)

    def published(self) -> dict[str, Tensor]:
        """Returns a copy of the tensors by published key, of an average with its `alpha`, before its sigmoid."""
        tensors = {key: value.detach().cpu().clone() for key, value in self.step.state_dict().items()}
        if self.step.architecture.kind == "salema":
            tensors["alpha"] = self.coefficient.detach().cpu().double().logit(eps=1e-7).float()
        return tensors


class _DroppingStep(SaliencyStep):
    """One step of the network that drops channels of what enters an averaged layer, while it is trained."""

    def __init__(self, architecture: Architecture, weights: Mapping[str, Tensor], dropout: float) -> None:
        super().__init__(architecture, weights)
        self._dropout = dropout
        self._draws: list[torch.Generator] = []

    @property
    def device(self) -> torch.device:
        return self._mean.device

    @contextmanager
    def seeded(self, seeds: Tensor) -> Iterator[None]:
        """Draws what is dropped from these seeds, one for each clip: so no other clip, process or device changes it."""
        self._draws = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
        try:
            yield
        finally:
            self._draws = []

    def entering(self, x: Tensor) -> Tensor:
        if not self.training or not self._dropout:
            return x
        kept = torch.stack([torch.rand(x.shape[1], generator=draws) >= self._dropout for draws in self._draws])
        scale = kept.to(x.device, x.dtype) / (1 - self._dropout)
        return x * scale[:, :, None, None]
