"""What is minimised: how far maps are from where people looked, for each frame of a batch of clips."""

from __future__ import annotations

import torch
from torch import Tensor

from salema.training.recipes import Recipe

_SMALL = 1e-8  # keeps logarithms and divisions of float32 finite
_TINY = 1e-30  # of which float32 still has a logarithm
_PIXELS = (2, 3)


def frame_losses(maps: Tensor, density: Tensor, fixations: Tensor, wanted: Recipe) -> dict[str, Tensor]:
    """Takes every term of the loss that the recipe gives a weight, for each frame.

    Args:
        maps: the sigmoid maps `[N, T, H, W]` float32, 0 to 1.
        density: `[N, T, H, W]` float32, 0 to 1.
        fixations: how many on each pixel, `[N, T, H, W]` float32; frames that have none get no NSS.
        wanted: the recipe.

    Returns:
        `[N, T]` float32 by term: `bce`, the mean over the pixels; `kld`, of the map from the density, each as shares of
        its sum, in nats; `cc`, 1 less the correlation; `nss`, its negative.
    """
    terms = {"bce": _bce, "kld": _kld, "cc": _cc}
    losses = {name: term(maps, density) for name, term in terms.items() if getattr(wanted, name)}
    if wanted.nss:
        losses["nss"] = -_nss(maps, fixations)
    return losses


def weighted(losses: dict[str, Tensor], wanted: Recipe) -> Tensor:
    """Returns the sum of the terms, each by its weight, `[N, T]`."""
    parts = [getattr(wanted, name) * loss for name, loss in losses.items()]
    return torch.stack(parts).sum(0)


def _bce(maps: Tensor, density: Tensor) -> Tensor:
    # Not PyTorch's own, which raises on a NaN, where we name the clip.
    own, others = (values.clamp(min=_TINY).log() for values in (maps, 1 - maps))
    return -(density * own + (1 - density) * others).mean(_PIXELS)


def _kld(maps: Tensor, density: Tensor) -> Tensor:
    own, wanted = (values / (values.sum(_PIXELS, keepdim=True) + _SMALL) for values in (maps, density))
    return (wanted * ((wanted + _SMALL).log() - (own + _SMALL).log())).sum(_PIXELS)


def _cc(maps: Tensor, density: Tensor) -> Tensor:
    own, wanted = _centred(maps), _centred(density)
    squares = own.square().sum(_PIXELS) * wanted.square().sum(_PIXELS)
    return 1 - (own * wanted).sum(_PIXELS) / (squares + _SMALL).sqrt()


def _nss(maps: Tensor, fixations: Tensor) -> Tensor:
    own = _centred(maps)
    standardised = own / (own.square().mean(_PIXELS, keepdim=True) + _SMALL).sqrt()
    return (standardised * fixations).sum(_PIXELS) / fixations.sum(_PIXELS).clamp(min=1)


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(_PIXELS, keepdim=True)
