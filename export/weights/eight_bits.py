"""Weights in 8 bits on disk: half of what they take in FP16. They are FP32 again once read.

A weight `KEY` is int8 `[out, ...]`, -127 to 127. `KEY.scale`, float32 `[out]`, is what each output channel is to be
multiplied with. Biases are FP16.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_SCALE = ".scale"
_MOST = 127
_LEAST_SCALE = 1e-30  # of a channel that is all zero


def packed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors by key as they are stored; an output channel's greatest weight is 127 or -127."""
    stored = {}
    for key, value in weights.items():
        if value.ndim == 1:
            stored[key] = value.half()
            continue
        scale = (value.abs().flatten(1).amax(1) / _MOST).clamp(min=_LEAST_SCALE)
        stored[key] = (value / _along(scale, value)).round().to(torch.int8)
        stored[key + _SCALE] = scale
    return stored


def unpacked(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors by key, those of 8 bits in float32; the others are as they were.

    Raises:
        ValueError, KeyError: a scale is not of an int8 weight, or has not a number for each of its output channels.
    """
    scales = {key.removesuffix(_SCALE): value for key, value in stored.items() if key.endswith(_SCALE)}
    values = {key: value for key, value in stored.items() if not key.endswith(_SCALE)}
    for key, scale in scales.items():
        if (values[key].dtype, scale.dtype) != (torch.int8, torch.float32) or scale.shape != values[key].shape[:1]:
            raise ValueError(f"{key}{_SCALE}: does not fit {key}")
    return values | {key: values[key].float() * _along(scale, values[key]) for key, scale in scales.items()}


def _along(scale: Tensor, value: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (value.ndim - 1))
