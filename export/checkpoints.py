"""Any published checkpoint, read safely and strictly, as one dictionary of float32 tensors by published key."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from salema.export.architecture import (
    CLSTM56_END,
    CONVS,
    ENCODER_END,
    FINAL_CONVS,
    LAST_CONV,
    Architecture,
    Hint,
    Kind,
    hint_from_name,
)
from salema.export.seeded import seeded_state_dict
from salema.runtime.errors import CheckpointError, UsageError, reason
from salema.runtime.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_SEEDED = re.compile(r"seeded(?::(\d+))?")
_LASAGNE_ARRAYS = 2 * sum(index <= LAST_CONV for index in CONVS)
_SAFETENSORS_KEY = "salema"


@dataclass(frozen=True)
class Checkpoint:
    """Weights as published.

    Attributes:
        name: the file's name, or `seeded`.
        sha256: of the file; of the tensors for seeded weights.
        weights: float32 tensors by key (`salgan.N.weight`, `Gates.bias`, ...), without `alpha`.
        learned_alpha: the checkpoint's `alpha` before its sigmoid, or None.
        kind: the family that the keys show; `salema` stands for any generator without an LSTM.
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
    """Reads weights from wherever a user has them.

    Args:
        source: a file (`.pt` as published, SalGAN's Lasagne `.npz`, our `.safetensors`; told apart by content), an
            http(s) URL (downloaded once into the user's cache), or `seeded`, or `seeded:8` for an eighth of the widths.
        seeded_kind: the family to make when `source` is seeded.

    Raises:
        UsageError: `seeded:` with a number that is no divisor.
        CheckpointError: it is missing, damaged, holds more than tensors, or does not fit.
    """
    if match := _SEEDED.fullmatch(source):
        return _seeded(seeded_kind, int(match[1] or 1))
    path = _download(source) if source.startswith(("http://", "https://")) else Path(source)
    name = source.rsplit("/", 1)[-1].split("?", 1)[0]
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give a checkpoint, a URL, or 'seeded' for untrained weights")
    try:
        tensors, hint = _read(path)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({reason(error)})") from error
    weights, alpha = _split_alpha(tensors, name)
    kind = _check(weights, name)
    if alpha is not None and kind != "salema":
        raise CheckpointError(f"{name}: unexpected key alpha: a learned coefficient belongs to SalEMA, not to {kind}")
    return Checkpoint(name, _sha256(path), weights, alpha, kind, hint or hint_from_name(name, kind))


def save_safetensors(path: Path, checkpoint: Checkpoint, architecture: Architecture) -> None:
    """Writes weights with their architecture as `.safetensors`, which holds no code and loads without a hint.

    Raises:
        OutputError: the file can't be written.
    """
    from safetensors.torch import save  # noqa: PLC0415 - only for those who ask

    locs = " ".join(map(str, architecture.ema_locs))
    metadata = {_SAFETENSORS_KEY: f"{architecture.kind};{locs};{int(architecture.residual)}"}
    tensors = dict(checkpoint.weights)
    if checkpoint.learned_alpha is not None:
        tensors["alpha"] = torch.tensor([checkpoint.learned_alpha])
    write_bytes(path, save({key: value.contiguous() for key, value in tensors.items()}, metadata))


def _seeded(kind: Kind, divisor: int) -> Checkpoint:
    if divisor < 1:
        raise UsageError("--weights seeded:0: the divisor of the channel widths must be 1 or more")
    arrays = seeded_state_dict(kind, divisor)
    digest = hashlib.sha256(b"".join(key.encode() + arrays[key].tobytes() for key in sorted(arrays)))
    weights = {key: torch.from_numpy(array) for key, array in arrays.items()}
    keys_kind: Kind = "salema" if kind == "salgan" else kind
    name = "seeded" if divisor == 1 else f"seeded:{divisor}"
    return Checkpoint(name, digest.hexdigest(), weights, None, keys_kind, None, trained=False)


def _download(url: str) -> Path:
    import logging  # noqa: PLC0415

    import pooch  # noqa: PLC0415 - only for those who download
    import requests  # noqa: PLC0415

    pooch.get_logger().setLevel(logging.WARNING)  # we print the hash ourselves
    try:
        return Path(pooch.retrieve(url, known_hash=None, path=pooch.os_cache("salema"), progressbar=True))
    except (requests.RequestException, OSError, ValueError) as error:
        raise CheckpointError(f"{url}: can't be downloaded ({reason(error)}); download it by hand") from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Tensor], Hint | None]:
    with path.open("rb") as file:
        head = file.read(9)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if all(name.endswith(".npy") for name in archive.namelist()):
                return _read_lasagne(path)
    elif len(head) == 9 and head[8:] == b"{" and struct.unpack("<Q", head[:8])[0] < path.stat().st_size:  # noqa: PLR2004
        return _read_safetensors(path)
    return _read_torch(path)


def _read_torch(path: Path) -> tuple[dict[str, Tensor], Hint | None]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if blocked:
            raise CheckpointError(
                f"{path}: holds more than tensors ({blocked[1]}), which could run code on loading; nothing was run."
                " If you trust the file, load it yourself and save its state_dict alone"
            ) from None
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or a damaged one ({reason(error)})") from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or a truncated one ({reason(error)})") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: holds no state_dict but a {type(content).__name__}; save model.state_dict()")
    tensors = {str(key).removeprefix("module."): value for key, value in content.items()}
    strangers = [key for key, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if strangers:
        raise CheckpointError(f"{path}: {_some(strangers)} in it are not tensors; save model.state_dict() alone")
    if all(re.fullmatch(r"\d+\.(weight|bias)", key) for key in tensors):  # SalGAN's or SalBCE's inner Sequential
        hint = Hint(Architecture("salgan"), "the file's bare keys, as SalGAN's and SalBCE's have")
        return {f"salgan.{key}": value for key, value in tensors.items()}, hint_from_name(path.name, "salema") or hint
    return tensors, None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Hint | None]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - the file is no dict
            record = (file.metadata() or {}).get(_SAFETENSORS_KEY)
        if record is None:
            return tensors, None
        kind, locs, residual = record.split(";")
        architecture = Architecture(kind, tuple(map(int, locs.split())), residual == "1")
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: a damaged safetensors file ({reason(error)})") from error
    return tensors, Hint(architecture, "the file's metadata")


def _read_lasagne(path: Path) -> tuple[dict[str, Tensor], Hint | None]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: a damaged NumPy archive ({reason(error)})") from error
    expected = {f"arr_{index}" for index in range(_LASAGNE_ARRAYS)}
    if set(arrays) != expected:
        raise CheckpointError(
            f"{path}: not SalGAN's Lasagne weights: it holds {len(arrays)} arrays ({_some(sorted(arrays))});"
            f" arr_0 to arr_{_LASAGNE_ARRAYS - 1} expected"
        )
    tensors = {}
    for order, index in enumerate(CONVS):
        weight, bias = arrays[f"arr_{2 * order}"], arrays[f"arr_{2 * order + 1}"]
        # Lasagne flips a convolution's kernel by default; SalGAN's encoder, converted from Caffe, was built without.
        if index >= ENCODER_END and weight.ndim == 4:  # noqa: PLR2004
            weight = weight[:, :, ::-1, ::-1]
        try:
            tensors[f"salgan.{index}.weight"] = torch.from_numpy(weight.copy())
            tensors[f"salgan.{index}.bias"] = torch.from_numpy(bias.copy())
        except TypeError as error:
            raise CheckpointError(f"{path}: arr_{2 * order} or the next holds no numbers ({reason(error)})") from error
    return tensors, Hint(Architecture("salgan"), "the file's form, SalGAN's Lasagne weights")


def _split_alpha(tensors: Mapping[str, Tensor], name: str) -> tuple[dict[str, Tensor], float | None]:
    unusable = [key for key, value in tensors.items() if not value.is_floating_point() or not value.isfinite().all()]
    if unusable:
        raise CheckpointError(
            f"{name}: {_some(unusable)} hold integers, NaN or infinity; the file is not a trained network"
        )
    weights = {key: value.detach().float() for key, value in tensors.items()}
    alpha = weights.pop("alpha", None)
    if alpha is not None and alpha.numel() != 1:
        raise CheckpointError(f"{name}: alpha has shape {tuple(alpha.shape)}; one number expected")
    return weights, None if alpha is None else float(alpha)


def _check(weights: Mapping[str, Tensor], name: str) -> Kind:
    """Returns the family that the keys show, once every key and shape fits it."""
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
            f"{name}: does not fit {kind}: missing keys {_some(missing)}; unexpected keys {_some(unexpected)}"
        )
    channels = 3
    for conv in chain:
        if gates and conv in {f"salgan.{ENCODER_END}", "final_convs.0"} and (kind == "salclstm56") == ("final" in conv):
            _check_conv(weights, name, "Gates", 2 * channels, 4 * channels, kernel=3)
        last = conv == chain[-1]
        out = 1 if last else weights[f"{conv}.weight"].shape[0]
        _check_conv(weights, name, conv, channels, out, kernel=1 if last else 3)
        channels = out
    return kind


def _check_conv(weights: Mapping[str, Tensor], name: str, conv: str, inp: int, out: int, kernel: int) -> None:
    for part, shape in (("weight", (out, inp, kernel, kernel)), ("bias", (out,))):
        found = tuple(weights[f"{conv}.{part}"].shape)
        if found != shape:
            raise CheckpointError(f"{name}: {conv}.{part} has shape {found}; {shape} expected")


def _some(keys: list[str], most: int = 4) -> str:
    if not keys:
        return "none"
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")
