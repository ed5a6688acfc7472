"""Recipes: every choice of a training run that is not about its data, named once; options replace single choices."""

import math
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import typer

from salema.export.weights.architecture import CLSTM56_END, LAYERS, Kind
from salema.runtime.errors import UsageError

_MORE_THAN_0 = ("lr", "alpha_lr", "clip_norm")
_RECIPE: Any = None  # an option that was not given: the recipe's own choice holds


@dataclass(frozen=True)
class Recipe:
    """How to train. As options of the command, what was not given is None; a recipe has every choice made."""

    optimiser: Annotated[
        str, typer.Option(help="adam (decay added to the gradient) or adamw (decay apart from it).")
    ] = _RECIPE
    lr: Annotated[float, typer.Option(help="Learning rate.")] = _RECIPE
    alpha_lr: Annotated[float, typer.Option(help="Learning rate of a learned alpha, which has no decay.")] = _RECIPE
    weight_decay: Annotated[float, typer.Option(help="Decay of the generator's weights.")] = _RECIPE
    warmup: Annotated[int, typer.Option(min=0, metavar="STEPS", help="Steps over which the rate rises.")] = _RECIPE
    schedule: Annotated[str, typer.Option(help="constant, or cosine: down to a hundredth of the rate.")] = _RECIPE
    bce: Annotated[float, typer.Option(help="Weight of the cross-entropy per pixel.")] = _RECIPE
    kld: Annotated[float, typer.Option(help="Weight of the divergence from the density.")] = _RECIPE
    cc: Annotated[float, typer.Option(help="Weight of 1 less the correlation with the density.")] = _RECIPE
    nss: Annotated[float, typer.Option(help="Weight of the NSS, which is subtracted.")] = _RECIPE
    reduction: Annotated[str, typer.Option(help="Over a clip's frames: sum or mean.")] = _RECIPE
    order: Annotated[
        str, typer.Option(help="videos (from start to end, the state carried on) or clips (shuffled, random starts).")
    ] = _RECIPE
    clip_frames: Annotated[int, typer.Option(min=1, help="Frames of a clip: one step of training.")] = _RECIPE
    batch: Annotated[int, typer.Option(min=1, help="Clips per step, over all processes.")] = _RECIPE
    epochs: Annotated[int, typer.Option(min=1, help="Times through the data.")] = _RECIPE
    half_size: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the epochs, from the first on, at half the size.")
    ] = _RECIPE
    clip_norm: Annotated[
        float, typer.Option(help="Greatest norm of the gradients, per frame where a clip's frames are summed.")
    ] = _RECIPE
    dropout: Annotated[
        float, typer.Option(min=0, max=0.99, help="Chance that a channel that enters the averaged layer is dropped.")
    ] = _RECIPE
    average: Annotated[
        float, typer.Option(min=0, max=1, help="Decay of the averaged weights, which are what is saved; 0: none.")
    ] = _RECIPE
    thaw: Annotated[
        bool, typer.Option("--thaw/--no-thaw", help="ConvLSTM: train the gates first, the generator from its end on.")
    ] = _RECIPE
    augment: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Mirror, cut out and recolour the frames.")
    ] = _RECIPE


_CHOICES = {
    "optimiser": ("adam", "adamw"),
    "schedule": ("constant", "cosine"),
    "reduction": ("sum", "mean"),
    "order": ("videos", "clips"),
}
# The paper's were read in the published code and its history; docs/training.md has the table.
_NAMES = ("paper", "default")
_TABLE: dict[str, tuple[Any, Any]] = {
    "optimiser": ("adam", "adamw"),
    "lr": (1e-6, 1e-3),
    "alpha_lr": (0.1, 0.02),
    "weight_decay": (1e-4, 1e-2),
    "warmup": (0, 60),
    "schedule": ("constant", "cosine"),
    "bce": (1.0, 0.3),
    "kld": (0.0, 1.0),
    "cc": (0.0, 0.5),
    "nss": (0.0, 0.1),
    "reduction": ("sum", "mean"),
    "order": ("videos", "clips"),
    "clip_frames": (10, 8),
    "batch": (1, 8),
    "epochs": (7, 30),
    "half_size": (0.0, 0.75),
    "clip_norm": (10.0, 1.0),
    "dropout": (0.5, 0.0),
    "average": (0.0, 0.998),
    "thaw": (True, False),
    "augment": (False, True),
}
RECIPES = {
    name: Recipe(**{choice: values[place] for choice, values in _TABLE.items()}) for place, name in enumerate(_NAMES)
}
_PAPER_LR = {"Hollywood-2": 1e-7, "UCF-sports": 1e-7}  # where it goes on from SalEMA30
_ALPHAS = {"paper": 0.25, "default": 0.0}  # where a learned alpha begins, before its sigmoid


def choose_recipe(name: str, given: Recipe, dataset: str) -> Recipe:
    """Returns a recipe with the choices that were given put in place of its own.

    What was not `given` is None. The paper's learning rate depends on the dataset.

    Raises:
        UsageError: there is no such recipe, or an option has no such value.
    """
    if name not in RECIPES:
        raise UsageError(f"--recipe {name}: not one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    if name == "paper":
        recipe = replace(recipe, lr=_PAPER_LR.get(dataset, recipe.lr))
    values = {field.name: getattr(given, field.name) for field in fields(given)}
    recipe = replace(recipe, **{name: value for name, value in values.items() if value is not None})
    for option, known in _CHOICES.items():
        if getattr(recipe, option) not in known:
            raise UsageError(f"--{option} {getattr(recipe, option)}: not one of {', '.join(known)}")
    _check_numbers(recipe)
    if not any((recipe.bce, recipe.kld, recipe.cc, recipe.nss)):
        raise UsageError("--bce, --kld, --cc and --nss are all 0: there is nothing to learn; give one of them a weight")
    return recipe


def _check_numbers(recipe: Recipe) -> None:
    for option, value in vars(recipe).items():
        if not isinstance(value, float):
            continue
        name = f"--{option.replace('_', '-')}"
        if not math.isfinite(value) or value < 0:
            raise UsageError(f"{name} {value:g}: give a number that is 0 or more")
        if option in _MORE_THAN_0 and not value:
            raise UsageError(f"{name} {value:g}: give more than 0")


def first_alpha(name: str) -> float:
    """Returns where a learned alpha begins, before its sigmoid."""
    return _ALPHAS[name]


def first_epoch(key: str, kind: Kind) -> int:
    """Returns in which epoch a tensor begins to learn under the gradual thaw, by its published key; from 1.

    Source: the published code's ConvLSTM runs. First the gates, then the generator's last layers, then more of them:
    `salgan[-5:-1]`, `[-10:-5]`, `[-15:-10]`, and at last the rest.
    """
    if not key.startswith("salgan."):
        return 1
    layers = CLSTM56_END if kind == "salclstm56" else len(LAYERS)
    behind = layers - int(key.split(".")[1])
    return next((epoch for epoch, most in ((2, 5), (3, 10), (4, 15)) if behind <= most), 5)
