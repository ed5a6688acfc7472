"""The optimiser of a recipe, its learning rate over the steps, and which tensors learn when."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from salema.training.network import ClipNetwork
from salema.training.recipes import Recipe, first_epoch

_LEAST = 0.01  # of the rate, where the cosine ends
_SOON = 10  # after as many steps the average is of about half of them
_CLASSES = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def make_optimiser(network: ClipNetwork, recipe: Recipe) -> torch.optim.Optimizer:
    """Makes the optimiser of a recipe: decay on the generator alone, and for AdamW not on its biases.

    Each group keeps its full learning rate as `base_lr`.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for key, tensor in network.step.named_parameters():
        is_decayed = key.startswith("salgan.") and (recipe.optimiser == "adam" or tensor.ndim > 1)
        (decayed if is_decayed else plain).append(tensor)
    groups = [(decayed, recipe.lr, recipe.weight_decay), (plain, recipe.lr, 0.0)]
    if network.alpha is not None:
        groups.append(([network.alpha], recipe.alpha_lr, 0.0))
    make: type[torch.optim.Optimizer] = _CLASSES[recipe.optimiser]
    return make(  # type: ignore[call-arg] # each has its own defaults
        [
            {"params": tensors, "lr": lr, "base_lr": lr, "weight_decay": decay}
            for tensors, lr, decay in groups
            if tensors
        ]
    )


def rate_at(recipe: Recipe, step: int, steps: int) -> float:
    """Returns the share of the learning rate at a step, from 0, of all the run's steps."""
    risen = min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else 1.0
    if recipe.schedule == "constant":
        return risen
    return risen * (_LEAST + (1 - _LEAST) * (1 + math.cos(math.pi * step / steps)) / 2)


def set_rate(optimiser: torch.optim.Optimizer, share: float) -> None:
    """Sets the learning rate of each group to a share of its full one."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * share


def averaging(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Returns how `AveragedModel` moves an average towards a tensor: faster while there are few steps to average."""

    def average(averaged: Tensor, tensor: Tensor, count: Tensor | int) -> Tensor:
        own = min(decay, (1 + int(count)) / (_SOON + int(count)))
        return averaged + (1 - own) * (tensor - averaged)

    return average


def frozen_at(network: ClipNetwork, recipe: Recipe, epoch: int) -> list[nn.Parameter]:
    """Returns the tensors that do not learn yet in an epoch, which counts from 1: of a ConvLSTM that thaws."""
    kind = network.step.architecture.kind
    if not recipe.thaw or not kind.startswith("salclstm"):
        return []
    return [tensor for key, tensor in network.step.named_parameters() if first_epoch(key, kind) > epoch]


def forget_gradients(tensors: Iterable[nn.Parameter]) -> None:
    """Takes gradients away, so that neither the norm nor the optimiser sees them."""
    for tensor in tensors:
        tensor.grad = None
