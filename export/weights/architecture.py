"""The layers of the published network and its temporal variants, without weights."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

from salema.runtime.errors import CheckpointError, UsageError

Kind = Literal["salgan", "salema", "salclstm30", "salclstm56"]
KINDS: tuple[Kind, ...] = get_args(Kind)

LAYERS = "CRCRMCRCRMCRCRCRMCRCRCRMCRCRCR" + "CRCRCRUCRCRCRUCRCRCRUCRCRUCRCR" + "CS"
"""`salgan.0` to `salgan.61`: convolution, ReLU, max-pool, upsampling, sigmoid; the decoder starts at 30."""
CONVS = tuple(index for index, layer in enumerate(LAYERS) if layer == "C")
ENCODER_END = 30  # layers before it are VGG-16's features
CLSTM56_END = 56  # SalCLSTM56 leaves the generator after salgan.55
LAST_CONV = 60  # the 1x1 convolution to one channel
FINAL_CONVS = (0, 2, 4)  # SalCLSTM56's last layers
DEFAULT_EMA_LOC = 30
DEFAULT_ALPHA = 0.1
MULTIPLE = 16  # four pools

_NAMES = {"salgan": "SalGAN", "salclstm30": "SalCLSTM30", "salclstm56": "SalCLSTM56"}
_MOST_EMAS = 2
_LEAST_COEFFICIENT = 1e-7  # below it, a new frame no longer changes a float32 state
_PUBLISHED = re.compile(
    r"(?:Sal(?P<plain>GAN|BCE)|SalEMA(?P<loc>7|30|54|61)(?P<residual>R)?|(?P<clstm>SalCLSTM30R))\.pt"
)
_LIKE_PUBLISHED = re.compile(r"sal[-_ ]?(?:gan|bce|ema[-_ ]?\d|clstm[-_ ]?\d+[-_ ]?R)", re.IGNORECASE)


@dataclass(frozen=True)
class Architecture:
    """A variant, such as a row of the published table.

    Attributes:
        kind: the family.
        ema_locs: the layers whose output is averaged, ascending: one or two for `salema`, none for the others.
        residual: whether the averaged layer's input (for SalCLSTM30 the encoder's output) is added to the state.
        plain_recurrence: whether an average in the encoder follows the plain rule. In the published code ReLUs work in
            place there: they overwrite the state before them, and the residual that is their input.

    Raises:
        UsageError: there is no such variant.
    """

    kind: Kind
    ema_locs: tuple[int, ...] = ()
    residual: bool = False
    plain_recurrence: bool = False

    def __post_init__(self) -> None:
        if (self.kind == "salema") != bool(self.ema_locs):
            raise UsageError(f"--ema-loc: SalEMA needs a location, and only SalEMA has one; this is {self.kind}")
        if len(self.ema_locs) > _MOST_EMAS or len(set(self.ema_locs)) < len(self.ema_locs):
            raise UsageError(f"--ema-loc {self._locs}: give one location, or two that differ")
        if any(not 0 <= loc < len(LAYERS) for loc in self.ema_locs):
            raise UsageError(f"--ema-loc {self._locs}: locations go from 0 to {len(LAYERS) - 1}")
        if list(self.ema_locs) != sorted(self.ema_locs):
            raise UsageError(f"--ema-loc {self._locs}: give the earlier layer first")
        if self.residual and (self.kind in {"salgan", "salclstm56"} or len(self.ema_locs) > 1):
            raise UsageError("--residual is for SalEMA with one location and for SalCLSTM30")
        if self.plain_recurrence and self.kind != "salema":
            raise UsageError(f"--plain-recurrence is for SalEMA, which has an average; this is {self.name}")

    @property
    def _locs(self) -> str:
        return " ".join(map(str, self.ema_locs))

    @property
    def name(self) -> str:
        """The published name, such as `SalEMA30R`; a double EMA is `SalEMA30+54`."""
        base = _NAMES.get(self.kind) or "SalEMA" + "+".join(map(str, self.ema_locs))
        return base + ("R" if self.residual else "")

    @property
    def recurrence(self) -> str:
        """The rule of the average, in words; empty if it is the published code's and equals the plain one."""
        published = replace(self, plain_recurrence=False)
        kept = [str(location) for location in self.ema_locs if published.keeps_rectified(location)]
        added = any(published.adds_rectified(location) for location in self.ema_locs)
        if self.plain_recurrence:
            return "plain, not the published code's" if kept or added else "plain, which is the published code's here"
        if added:
            return "the published code's: what is added to the state is what left the ReLU"
        return f"the published code's: the state at {' and '.join(kept)} is kept after the ReLU" if kept else ""

    def keeps_rectified(self, location: int) -> bool:
        """Whether the state after `location` is kept as it is after the next ReLU."""
        return self._is_in_place(location, "C") and not self.residual

    def adds_rectified(self, location: int) -> bool:
        """Whether the output of layer `location`, a ReLU, is added to the state, and not its input."""
        return self._is_in_place(location, "R") and self.residual

    def _is_in_place(self, location: int, layer: str) -> bool:
        return location < ENCODER_END and LAYERS[location] == layer and not self.plain_recurrence

    @classmethod
    def named(cls, name: str, *, plain_recurrence: bool = False) -> Architecture:
        """Returns the variant with this name.

        Raises:
            UsageError: there is none.
        """
        for kind, base in _NAMES.items():
            if name in {base, f"{base}R"}:
                return cls(next(known for known in KINDS if known == kind), residual=name != base)
        match = re.fullmatch(r"SalEMA(\d+(?:\+\d+)?)(R?)", name)
        if not match:
            raise UsageError(f"{name}: no architecture of ours has this name")
        locations = tuple(int(loc) for loc in match[1].split("+"))
        return cls("salema", locations, residual=bool(match[2]), plain_recurrence=plain_recurrence)


@dataclass(frozen=True)
class Hint:
    """An architecture that a file's name or form suggests, and which of them suggests it."""

    architecture: Architecture
    source: str


def hint_from_name(name: str, kind: Kind) -> Hint | None:
    """Reads the variant from a checkpoint's file name, if that is exactly a published one.

    These are `SalGAN.pt`, `SalBCE.pt`, `SalEMA7.pt`, 30, 54 and 61, also with R, and `SalCLSTM30R.pt`. Other names mean
    nothing: in `salema0.pt` the 0 may be the number of a run. `kind` is the family that the file's keys show.
    """
    match = _PUBLISHED.fullmatch(name)
    if not match or kind != ("salclstm30" if match["clstm"] else "salema"):
        return None
    source = f"the file's name {name}"
    if match["clstm"]:
        return Hint(Architecture("salclstm30", residual=True), source)
    if match["plain"]:
        return Hint(Architecture("salgan"), source)
    return Hint(Architecture("salema", (int(match["loc"]),), residual=bool(match["residual"])), source)


def doubt_of_name(name: str, kind: Kind) -> str | None:
    """Returns a note on a name that looks published but is not, and so decides nothing; None for other names."""
    if not _LIKE_PUBLISHED.search(name) or hint_from_name(name, kind) or name in {f"SalCLSTM{n}.pt" for n in (30, 56)}:
        return None
    return f"the file's name {name} was not believed, as it is none of SalEMA7|30|54|61[R].pt, SalGAN.pt, SalBCE.pt"


def choose_architecture(
    kind: Kind, hint: Hint | None, arch: str, ema_locs: tuple[int, ...], residual: bool | None
) -> tuple[Architecture, str]:
    """Chooses the variant of a checkpoint, and says in words where it comes from; options win over the hint.

    `kind` is the family that the keys show; `salema` means any generator without an LSTM. `arch` is `auto` or a kind,
    and like `ema_locs` (empty) and `residual` (None) as the user gave it.

    Raises:
        UsageError: the options contradict each other or the checkpoint.
    """
    if arch not in {"auto", *KINDS}:
        raise UsageError(f"--arch {arch}: not one of auto, {', '.join(KINDS)}")
    if arch not in {"auto", kind} and {arch, kind} != {"salgan", "salema"}:
        raise UsageError(f"--arch {arch}: the checkpoint holds {kind} weights; leave --arch out")
    family = arch if arch != "auto" else "salema" if ema_locs and kind == "salema" else None
    hinted = hint is not None and family in {None, hint.architecture.kind}
    chosen = hint.architecture if hint and hinted else _plainest(family or kind)
    if ema_locs:
        keeps = chosen.residual and ema_locs == chosen.ema_locs
        chosen = replace(chosen, ema_locs=ema_locs, residual=keeps)
    if residual is not None:
        chosen = replace(chosen, residual=residual)
    sources = [hint.source] if hint and hinted else []
    if arch != "auto" or ema_locs or residual is not None:
        sources.append("your options")
    return chosen, " and ".join(sources) or ("the default" if kind == "salema" else "the checkpoint's keys")


def _plainest(name: str) -> Architecture:
    kind = next(kind for kind in KINDS if kind == name)
    return Architecture(kind, (DEFAULT_EMA_LOC,) if kind == "salema" else ())


def effective_coefficient(learned: float | None, alpha: float | None, *, sigmoid: bool) -> tuple[float, str]:
    """Returns the weight of the new frame. The two readings of 0.1 differ by 12 grey levels on average.

    Args:
        learned: the checkpoint's `alpha`, or None; it always means its sigmoid.
        alpha: as the user gave it, or None.
        sigmoid: whether the user's value goes through a sigmoid, as the published code does since April 2019.

    Returns:
        The coefficient in (0, 1], and in words how it was read.

    Raises:
        UsageError: the options contradict the checkpoint, or the value is out of range.
        CheckpointError: the learned alpha is out of range.
    """
    if learned is not None:
        if alpha is not None or sigmoid:
            raise UsageError(
                f"--alpha and --alpha-sigmoid: the checkpoint holds a learned alpha of {learned:.6g}, which always"
                f" means its sigmoid {_sigmoid(learned):.6g}; leave them out"
            )
        if not _in_range(_sigmoid(learned)):
            raise CheckpointError(
                f"the checkpoint's learned alpha {learned:.6g} means a coefficient of {_sigmoid(learned):.3g}, with"
                " which no new frame ever counts; the checkpoint is damaged or was trained wrongly"
            )
        return _sigmoid(learned), f"sigmoid of the checkpoint's learned alpha {learned:.6g}"
    value = DEFAULT_ALPHA if alpha is None else alpha
    name = "the default" if alpha is None else "--alpha"
    coefficient = _sigmoid(value) if sigmoid and math.isfinite(value) else value
    if not _in_range(coefficient):
        raise UsageError(f"--alpha {value:g}: the weight of the new frame must lie in (0, 1]; the paper's is 0.1")
    return coefficient, f"sigmoid of {name} {value:g}" if sigmoid else f"{name} {value:g}, used directly"


def _in_range(coefficient: float) -> bool:
    return _LEAST_COEFFICIENT <= coefficient <= 1


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
