"""Untrained weights, and frames, made with NumPy alone: the same on every machine."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from salema.export.weights.architecture import CLSTM56_END, CONVS, FINAL_CONVS, LAST_CONV, Kind

# Output channels of the published network's 3x3 convolutions, encoder then decoder.
_ENCODER = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
_DECODER = (512, 512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64)
_INPUT_SCALE = 50  # standard deviation of pixels, about


def checkpoint_shapes(kind: Kind, divisor: Fraction | int = 1) -> dict[str, tuple[int, ...]]:
    """Shapes of a published checkpoint's tensors by key, its channel widths divided by `divisor`."""
    widths = [max(int(width / divisor), 1) for width in (*_ENCODER, *_DECODER)]
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, out: int, inp: int, kernel: int = 3) -> None:
        shapes[f"{name}.weight"] = (out, inp, kernel, kernel)
        shapes[f"{name}.bias"] = (out,)

    end = CLSTM56_END if kind == "salclstm56" else LAST_CONV
    convs = [index for index in CONVS if index < end]
    channels = 3
    for index, width in zip(convs, widths, strict=False):
        if kind == "salclstm30" and index == convs[len(_ENCODER)]:
            add("Gates", 4 * channels, 2 * channels)
        add(f"salgan.{index}", width, channels)
        channels = width
    if kind == "salclstm56":
        add("Gates", 4 * channels, 2 * channels)
        first, second, last = (f"final_convs.{index}" for index in FINAL_CONVS)
        add(first, widths[-1], channels)
        add(second, widths[-1], widths[-1])
        add(last, 1, widths[-1], kernel=1)
    else:
        add(f"salgan.{LAST_CONV}", 1, channels, kernel=1)
    return shapes


def seeded_state_dict(kind: Kind, divisor: Fraction | int = 1, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Returns He-scaled weights: activations keep unit variance from pixels to the sigmoid.

    Each tensor depends on nothing but its key, its shape and the seed.
    """
    return {key: _tensor(key, shape, seed) for key, shape in checkpoint_shapes(kind, divisor).items()}


def _tensor(key: str, shape: tuple[int, ...], run: int) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") + run
    normal = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float32)
    if key.endswith("bias"):
        return normal * np.float32(0.05)
    weight = normal * np.float32(np.sqrt(2.0 / np.prod(shape[1:])))
    if key == "salgan.0.weight":
        return weight / np.float32(_INPUT_SCALE)
    if key in {f"salgan.{LAST_CONV}.weight", f"final_convs.{FINAL_CONVS[-1]}.weight"}:
        return weight * np.float32(0.5)
    return weight


def moving_disc(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Returns BGR frames `(count, height, width, 3)`: a yellow disc that moves over a changing gradient."""
    rows, columns = np.mgrid[:height, :width]
    frames = np.empty((count, height, width, 3), np.uint8)
    for t, frame in enumerate(frames):
        frame[..., 0] = columns * 255 // max(width - 1, 1)
        frame[..., 1] = rows * 255 // max(height - 1, 1)
        frame[..., 2] = (columns + rows + 8 * t) % 256
        centre_row, centre_column = height // 4 + 3 * t, width // 4 + 5 * t
        frame[(rows - centre_row) ** 2 + (columns - centre_column) ** 2 < (height // 6) ** 2] = (30, 220, 250)
    return frames
