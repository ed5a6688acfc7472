"""Where training begins: the architecture, and weights for all of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from salema.export.weights.architecture import DEFAULT_ALPHA, KINDS, Architecture, Kind, choose_architecture
from salema.export.weights.checkpoints import Checkpoint, load_checkpoint
from salema.export.weights.seeded import checkpoint_shapes, seeded_state_dict
from salema.runtime.errors import CheckpointError, UsageError
from salema.training.recipes import first_alpha

SEEDED = "seeded"
_AVERAGED = Architecture("salema", (30,))
_MULTIPLE = 8
_FULL = 64  # channels of the first layers


def parse_width(text: str) -> Fraction:
    """Reads the share of the published network's channels, such as `1/8` or `0.25`.

    Raises:
        UsageError: it is no such number, or some layer's channels would be no multiple of 8.
    """
    try:
        width = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"--width {text}: not a number such as 1/8 or 0.25") from None
    if not 0 < width <= 1 or (width * _FULL / _MULTIPLE).denominator != 1:
        raise UsageError(f"--width {text}: channels must be multiples of {_MULTIPLE}; take 1/8, 1/4, 3/8, ... up to 1")
    return width


@dataclass(frozen=True)
class Start:
    """Where a network begins.

    Attributes:
        architecture: the variant.
        weights: by published key, without `alpha`.
        alpha: the average's, before its sigmoid: the checkpoint's own, or where a SalEMA has none that of 0.1, as
            `salema-export` takes it; None for drawn weights and for those of a generator.
        sha256: of the checkpoint's file; None for drawn weights.
    """

    architecture: Architecture
    weights: dict[str, Tensor]
    alpha: float | None = None
    sha256: str | None = None


def choose_start(
    init: str, arch: str, width: Fraction, seed: int, say: Callable[[str], None], *, averaged: bool = False
) -> Start:
    """Settles which network begins, and with which weights.

    Args:
        init: `seeded`, or whatever `load_checkpoint` takes. Weights of a generator also begin a ConvLSTM, whose gates
            are then drawn.
        arch: `auto`, or a name such as `salema30`, `salema30r`, `salema7+54`, `salgan`, `salclstm56`.
        width: share of the channels, for seeded weights.
        seed: of the weights that are drawn.
        say: takes a sentence on each choice.
        averaged: whether `auto` makes a SalEMA30 of a generator, as the published training does.

    Raises:
        UsageError: the options contradict each other.
        CheckpointError: see `load_checkpoint`; or the weights are of another architecture.
    """
    wanted = None if arch == "auto" else named(arch)
    if init == SEEDED:
        architecture = wanted or _AVERAGED
        say(f"weights       drawn from seed {seed}, {width} of the channels")
        return Start(architecture, drawn(architecture.kind, width, seed))
    if width != 1:
        raise UsageError(f"--width {width}: is for --init seeded; a checkpoint has its width, so leave it out")
    checkpoint = load_checkpoint(init)
    say(f"weights       {checkpoint.name}, SHA-256 {checkpoint.sha256}")
    found, source = choose_architecture(checkpoint.kind, checkpoint.hint, "auto", (), None)
    if wanted is None:
        wanted = found
        if averaged and found.kind == "salgan":
            wanted, source = _AVERAGED, f"{source}: a generator, which gets an average; --arch salgan trains it alone"
        say(f"architecture  {wanted.name} ({source})")
    alpha = checkpoint.learned_alpha
    if alpha is None and found.kind == "salema" and checkpoint.trained:
        alpha = math.log(DEFAULT_ALPHA / (1 - DEFAULT_ALPHA))
    return Start(wanted, _fitted(checkpoint, wanted.kind, seed), alpha, checkpoint.sha256)


def choose_alpha(text: str, start: Start, recipe: str) -> tuple[float | None, float]:
    """Settles the weight of the new frame: `learned`, or a number in (0, 1] that stays.

    The recipe says where a learned one begins if `start` does not.

    Returns:
        The learned one before its sigmoid, or None; and the fixed one, which holds where there is none.

    Raises:
        UsageError: it is neither, or the network has no average.
    """
    is_averaged = start.architecture.kind == "salema"
    if text == "learned":
        begins = first_alpha(recipe) if start.alpha is None else start.alpha
        return (begins if is_averaged else None), DEFAULT_ALPHA
    try:
        fixed = float(text)
    except ValueError:
        fixed = math.nan
    if not 0 < fixed <= 1:
        raise UsageError(f"--alpha {text}: not 'learned', and not a number in (0, 1]")
    if not is_averaged:
        raise UsageError(
            f"--alpha {text}: is the coefficient of an average, and {start.architecture.name} has none; leave it out"
        )
    return None, fixed


def named(arch: str) -> Architecture:
    """Returns the architecture of a name, in whatever case.

    Raises:
        UsageError: there is none.
    """
    bare = arch.lower()
    for kind, base in (("salema", "SalEMA"), ("salclstm", "SalCLSTM"), ("salgan", "SalGAN")):
        if bare.startswith(kind):
            rest = bare.removeprefix(kind) or ("30" if kind != "salgan" else "")
            try:
                return Architecture.named(base + rest.upper())
            except UsageError as error:
                raise of_arch(arch, error) from error
    raise UsageError(f"--arch {arch}: not one of salema30 (or another layer, r for residual), salgan, salclstm30, 56")


def of_arch(arch: str, error: UsageError) -> UsageError:
    """Returns an error that names the options of `salema-export` as one that names `--arch`."""
    return UsageError(f"--arch {arch}: {str(error).partition(': ')[2] or error}")


def drawn(kind: Kind, width: Fraction, seed: int) -> dict[str, Tensor]:
    """Returns He-scaled weights; gates are Xavier-normal, and biases 0, as in the published code."""
    arrays = seeded_state_dict(kind, 1 / width, seed)
    weights = {key: torch.from_numpy(array) for key, array in arrays.items()}
    return {key: torch.zeros_like(value) if key.endswith("bias") else value for key, value in weights.items()} | (
        _gates(kind, weights["Gates.weight"].shape, seed) if "Gates.weight" in weights else {}
    )


def _gates(kind: Kind, shape: torch.Size, seed: int) -> dict[str, Tensor]:
    weight = torch.empty(shape)
    torch.nn.init.xavier_normal_(weight, generator=torch.Generator().manual_seed(seed + KINDS.index(kind)))
    return {"Gates.weight": weight, "Gates.bias": torch.zeros(shape[0])}


def _fitted(checkpoint: Checkpoint, kind: Kind, seed: int) -> dict[str, Tensor]:
    """Returns a checkpoint's weights for an architecture; what a ConvLSTM adds to a generator is drawn."""
    family: Kind = "salema" if kind == "salgan" else kind
    if checkpoint.kind == family:
        return dict(checkpoint.weights)
    if checkpoint.kind != "salema":
        raise CheckpointError(f"--init {checkpoint.name}: holds {checkpoint.kind}, which can't begin a {kind}")
    width = Fraction(checkpoint.weights["salgan.0.weight"].shape[0], _FULL)
    shapes = checkpoint_shapes(kind, 1 / width)
    fresh = drawn(kind, width, seed)
    old = checkpoint.weights
    for key in shapes:
        if key in old and tuple(old[key].shape) != shapes[key]:
            raise CheckpointError(
                f"--init {checkpoint.name}: {key} has shape {tuple(old[key].shape)}, not {shapes[key]}"
            )
    return {key: old.get(key, fresh[key]) for key in shapes}
