"""Reads any published checkpoint as float32 tensors by published key, strictly checked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from salema.export.weights.architecture import (
    CLSTM56_END,
    CONVS,
    ENCODER_END,
    FINAL_CONVS,
    LAST_CONV,
    Hint,
    Kind,
    hint_from_name,
)
from salema.export.weights.checkpoint_files import Contents, download, read
from salema.export.weights.seeded import seeded_state_dict
from salema.runtime.errors import CheckpointError, UsageError
from salema.runtime.files.whole_files import sha256_of
from salema.runtime.wording import listed

SHIPPED = Path(__file__).parent / "shipped"  # trained weights that come with the package, each NAME.safetensors
_SEEDED = re.compile(r"seeded(?::(\d+))?")
_URL = re.compile(r"https?://", re.IGNORECASE)
_DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


@dataclass(frozen=True)
class Checkpoint:
    """Weights as published.

    Attributes:
        name: the file's name, `nano` or another of the shipped ones, or `seeded`.
        sha256: of the file; of the tensors for seeded weights.
        weights: float32 tensors by key (`salgan.N.weight`, `Gates.bias`, ...), without `alpha`.
        learned_alpha: the checkpoint's `alpha` before its sigmoid, or None.
        kind: the family that the keys show; `salema` means any generator without an LSTM.
        hint: the variant that the file suggests, or None.
        trained: False for seeded weights.
    """

    name: str
    sha256: str
    weights: dict[str, Tensor]
    learned_alpha: float | None
    kind: Kind
    hint: Hint | None
    trained: bool = True


def load_checkpoint(source: str, seeded_kind: Kind = "salema") -> Checkpoint:
    """Reads weights from a file or a URL, or makes seeded ones.

    Args:
        source: a file (`.pt` as published, SalGAN's Lasagne `.npz`, our `.safetensors`; told apart by content), an
            http(s) URL (downloaded once into the user's cache), `nano` or another name of `shipped_names` (also where
            a file is called so), or `seeded`, or `seeded:8` for an eighth of the widths.
        seeded_kind: the family of seeded weights.

    Raises:
        UsageError: `seeded:` has a number that is no divisor.
        CheckpointError: the file is missing or damaged, holds more than tensors, or does not fit.
    """
    if match := _SEEDED.fullmatch(source):
        return _seeded(seeded_kind, int(match[1] or 1))
    if source in shipped_names():
        path = SHIPPED / f"{source}.safetensors"
        return _checked(path, source, read(path))
    if _URL.match(source):
        path = download(source)
        try:
            return _checked(path, Path(urlsplit(source).path).name, read(path))
        except CheckpointError:
            path.unlink(missing_ok=True)  # else a login page, say, would stay in the cache
            raise
    path = Path(source)
    if not path.is_file():
        what = "not a file" if path.exists() else "no such file"
        names = ", ".join(f"'{name}'" for name in shipped_names())
        raise CheckpointError(
            f"{source}: {what}; give a checkpoint, an http or https URL, {names} for weights that ship, or 'seeded' for"
            " untrained ones"
        )
    return _checked(path, path.name, read(path))


def shipped_names() -> tuple[str, ...]:
    """Returns the names of the trained weights that come with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.safetensors")))


def _seeded(kind: Kind, divisor: int) -> Checkpoint:
    if divisor < 1:
        raise UsageError("--weights seeded:0: the divisor of the channel widths must be 1 or more")
    arrays = seeded_state_dict(kind, divisor)
    digest = hashlib.sha256(b"".join(key.encode() + arrays[key].tobytes() for key in sorted(arrays)))
    weights = {key: torch.from_numpy(array) for key, array in arrays.items()}
    keys_kind: Kind = "salema" if kind == "salgan" else kind
    name = "seeded" if divisor == 1 else f"seeded:{divisor}"
    return Checkpoint(name, digest.hexdigest(), weights, None, keys_kind, None, trained=False)


def _checked(path: Path, name: str, contents: Contents) -> Checkpoint:
    """Checks a file's contents; no value is read before its type and shape are known to be good."""
    values = dict(contents.values)
    unusable = [key for key, value in values.items() if not _is_plain(value)]
    if unusable:
        raise CheckpointError(f"{name}: {listed(unusable)}: not a plain floating tensor; save model.state_dict() alone")
    alpha = values.pop("alpha", None)
    if alpha is not None and alpha.numel() != 1:
        raise CheckpointError(f"{name}: alpha has shape {tuple(alpha.shape)}; one number expected")
    kind = _check(values, name)
    if alpha is not None and kind != "salema":
        raise CheckpointError(f"{name}: unexpected key alpha: a learned coefficient belongs to SalEMA, not to {kind}")
    if contents.stated and not _agrees(contents.stated, kind, has_alpha=alpha is not None):
        raise CheckpointError(f"{name}: its metadata says {contents.stated.architecture.name}, its keys {kind}")
    hints = (contents.stated, hint_from_name(name, kind), contents.hint)
    hint = next((hint for hint in hints if hint and _agrees(hint, kind, has_alpha=alpha is not None)), None)
    weights = {key: value.detach().float() for key, value in values.items()}
    broken = [key for key, value in weights.items() if not value.isfinite().all()]
    if broken or (alpha is not None and not alpha.isfinite().all()):
        raise CheckpointError(
            f"{name}: {listed(broken or ['alpha'])}: NaN or infinity; the file is not a trained network"
        )
    learned = None if alpha is None else float(alpha)
    return Checkpoint(name, sha256_of(path), weights, learned, kind, hint, contents.trained)


def _agrees(hint: Hint, kind: Kind, *, has_alpha: bool) -> bool:
    """Whether a file with these keys can be the suggested variant; SalGAN has no coefficient to learn."""
    family = "salema" if hint.architecture.kind == "salgan" else hint.architecture.kind
    return family == kind and not (has_alpha and hint.architecture.kind == "salgan")


def _is_plain(value: Any) -> bool:
    """Whether a value is a dense floating tensor on the CPU whose memory is as large as its shape says."""
    return (
        isinstance(value, torch.Tensor)
        and value.dtype in _DTYPES
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _check(weights: Mapping[str, Tensor], name: str) -> Kind:
    """Returns the family that the keys show, after checking that every key and shape fits it."""
    kind: Kind = "salema"
    if "Gates.weight" in weights:
        kind = "salclstm56" if any(key.startswith("final_convs.") for key in weights) else "salclstm30"
    end = CLSTM56_END if kind == "salclstm56" else LAST_CONV + 1
    chain = [f"salgan.{index}" for index in CONVS if index < end]
    if kind == "salclstm56":
        chain += [f"final_convs.{index}" for index in FINAL_CONVS]
    gates = [] if kind == "salema" else ["Gates"]
    expected = {f"{conv}.{part}" for conv in [*chain, *gates] for part in ("weight", "bias")}
    missing, unexpected = sorted(expected - set(weights)), sorted(set(weights) - expected)
    if missing or unexpected:
        raise CheckpointError(
            f"{name}: does not fit {kind}: missing keys {listed(missing)}; unexpected keys {listed(unexpected)}"
        )
    channels = 3
    for conv in chain:
        if gates and conv in {f"salgan.{ENCODER_END}", "final_convs.0"} and (kind == "salclstm56") == ("final" in conv):
            _check_conv(weights, name, "Gates", 2 * channels, 4 * channels, kernel=3)
        last = conv == chain[-1]
        shape = weights[f"{conv}.weight"].shape
        out = 1 if last or not shape else max(shape[0], 1)
        _check_conv(weights, name, conv, channels, out, kernel=1 if last else 3)
        channels = out
    return kind


def _check_conv(weights: Mapping[str, Tensor], name: str, conv: str, inp: int, out: int, kernel: int) -> None:
    for part, shape in (("weight", (out, inp, kernel, kernel)), ("bias", (out,))):
        actual = tuple(weights[f"{conv}.{part}"].shape)
        if actual != shape:
            raise CheckpointError(f"{name}: {conv}.{part} has shape {actual}; {shape} expected")
