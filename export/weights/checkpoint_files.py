"""The file formats of weights, on disk or from a URL. No code from a file is ever run."""

from __future__ import annotations

import json
import logging
import pickle
import re
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salema.export.weights.architecture import CONVS, ENCODER_END, KINDS, LAST_CONV, Architecture, Hint
from salema.export.weights.archives import MOST_WEIGHT_BYTES, check_arrays, check_unfolded
from salema.export.weights.eight_bits import unpacked
from salema.runtime.errors import CheckpointError, SalemaError, reason
from salema.runtime.files.bounded_files import check_file
from salema.runtime.files.whole_files import write_bytes
from salema.runtime.sources.source import shown_url

_LASAGNE_ARRAYS = 2 * sum(index <= LAST_CONV for index in CONVS)
_STATED_KEY = "salema"
_BARE = re.compile(r"\d+\.(weight|bias)")  # a key of the generator alone
_SAFETENSORS_HEAD = 9  # eight bytes of length, then the brace that opens the header


@dataclass(frozen=True)
class Contents:
    """The contents of a file: values by published key, not yet checked, and the variant that its form suggests.

    `stated` is the variant that our metadata in the file states; `trained` is False if that says that the weights were
    seeded.
    """

    values: dict[str, Any]
    hint: Hint | None = None
    stated: Hint | None = None
    trained: bool = True


def download(url: str) -> Path:
    """Downloads a URL once into the user's cache.

    Raises:
        CheckpointError: it can't be downloaded or kept.
    """
    import pooch  # noqa: PLC0415 - only for those who download
    import requests  # noqa: PLC0415

    try:
        shown = shown_url(url)
    except ValueError:
        raise CheckpointError("this URL of weights can't be read; check the address") from None
    pooch.get_logger().setLevel(logging.WARNING)  # we print the hash
    try:
        return Path(
            pooch.retrieve(url, known_hash=None, path=pooch.os_cache("salema"), progressbar=sys.stderr.isatty())
        )
    except requests.HTTPError as error:
        why = f"{error.response.status_code} {error.response.reason}"  # its own message holds the whole URL
        raise CheckpointError(f"{shown}: can't be downloaded ({why}); check the address") from error
    except (requests.RequestException, ValueError) as error:
        raise CheckpointError(
            f"{shown}: can't be downloaded (the server can't be reached); check the network, or download it by hand"
        ) from error
    except OSError as error:  # the disk; last, as the errors above are OSErrors too
        raise CheckpointError(
            f"{shown}: can't be kept in {pooch.os_cache('salema')} ({reason(error)}); make room there, or name another"
            " folder with XDG_CACHE_HOME"
        ) from error


def read(path: Path) -> Contents:
    """Reads a checkpoint of any known format, recognised by its content.

    Raises:
        CheckpointError: it is damaged, of another format, holds more than tensors, or unfolds to too much.
    """
    check_file(path, MOST_WEIGHT_BYTES, CheckpointError)
    try:
        return _reader(path)(path)
    except SalemaError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({reason(error)})") from error
    except Exception as error:  # a damaged file can fail anywhere in its reader, with any error
        raise CheckpointError(
            f"{path}: not a PyTorch, safetensors or SalGAN .npz checkpoint, or a truncated or damaged one; get it again"
        ) from error


def save_safetensors(
    path: Path, weights: Mapping[str, Tensor], learned_alpha: float | None, architecture: Architecture, *, trained: bool
) -> None:
    """Writes weights with their architecture as `.safetensors`, which holds no code.

    Raises:
        OutputError: the file can't be written.
    """
    from safetensors.torch import save  # noqa: PLC0415 - only for those who ask

    tensors = {key: value.contiguous() for key, value in weights.items()}
    if learned_alpha is not None:
        tensors["alpha"] = torch.tensor([learned_alpha])
    write_bytes(path, save(tensors, stated_as(architecture, trained=trained)))


def stated_as(architecture: Architecture, *, trained: bool = True) -> dict[str, str]:
    """Returns the entry of a file's metadata that states its architecture, and whether the weights are trained."""
    record = {
        "kind": architecture.kind,
        "ema_locs": architecture.ema_locs,
        "residual": architecture.residual,
        "trained": trained,
    }
    return {_STATED_KEY: json.dumps(record)}


def _read_stated(values: dict[str, Any], text: object) -> Contents:
    if not isinstance(text, str):
        return Contents(values)
    record = json.loads(text)
    kind = next(kind for kind in KINDS if kind == record["kind"])
    architecture = Architecture(kind, tuple(map(int, record["ema_locs"])), bool(record["residual"]))
    return Contents(values, stated=Hint(architecture, "the file's metadata"), trained=bool(record["trained"]))


def _reader(path: Path) -> Callable[[Path], Contents]:
    with path.open("rb") as file:
        head = file.read(_SAFETENSORS_HEAD)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_unfolded(path, archive)
            return _read_lasagne if all(name.endswith(".npy") for name in archive.namelist()) else _read_torch
    if head.endswith(b"{") and struct.unpack("<Q", head[:8])[0] < path.stat().st_size:
        return _read_safetensors
    return _read_torch


def _read_torch(path: Path) -> Contents:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's advice on loading
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if blocked is None:
            raise
        raise CheckpointError(
            f"{path}: holds more than tensors ({blocked[1]}), which could run code on loading; nothing was run."
            " If you trust the file, load it yourself and save its state_dict alone"
        ) from None
    stated = None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content, stated = content["state_dict"], content.get(_STATED_KEY)
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: holds no state_dict but a {type(content).__name__}; save model.state_dict()")
    values = _by_published_key(path, content)
    if all(_BARE.fullmatch(str(key).removeprefix("module.")) for key in content):
        return Contents(values, Hint(Architecture("salgan"), "the file's bare keys, as SalGAN's and SalBCE's have"))
    return _read_stated(values, stated)


def _by_published_key(path: Path, content: Mapping[Any, Any]) -> dict[str, Any]:
    """Takes the prefix of a parallel model from the keys, and gives bare ones the generator's."""
    bare = {key: str(key).removeprefix("module.") for key in content}
    values = {f"salgan.{bare[key]}" if _BARE.fullmatch(bare[key]) else bare[key]: content[key] for key in content}
    if len(values) < len(content):
        raise CheckpointError(
            f"{path}: holds some keys twice, with and without 'module.' or 'salgan.'; save one model alone"
        )
    return values


def _read_safetensors(path: Path) -> Contents:
    from safetensors import safe_open  # noqa: PLC0415

    with safe_open(str(path), framework="pt") as file:
        values = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - the file is no dict
        text = (file.metadata() or {}).get(_STATED_KEY)
    return _read_stated(_by_published_key(path, unpacked(values)), text)


def _read_lasagne(path: Path) -> Contents:
    with zipfile.ZipFile(path) as archive:
        check_arrays(path, archive)
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    if set(arrays) != {f"arr_{index}" for index in range(_LASAGNE_ARRAYS)}:
        raise CheckpointError(
            f"{path}: not SalGAN's Lasagne weights: {len(arrays)} arrays found, arr_0 to arr_{_LASAGNE_ARRAYS - 1}"
            " expected"
        )
    values = {}
    for order, index in enumerate(CONVS):
        weight, bias = arrays[f"arr_{2 * order}"], arrays[f"arr_{2 * order + 1}"]
        # Lasagne flips a convolution's kernel by default; SalGAN's encoder, converted from Caffe, was built without.
        if index >= ENCODER_END:
            weight = weight[:, :, ::-1, ::-1]
        values[f"salgan.{index}.weight"] = torch.from_numpy(weight.astype(np.float32))
        values[f"salgan.{index}.bias"] = torch.from_numpy(bias.astype(np.float32))
    return Contents(values, Hint(Architecture("salgan"), "the file's form, SalGAN's Lasagne weights"))
