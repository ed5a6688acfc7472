"""Launches the kernel `ema_update`. Twin: `twins/ema.py`."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np

from salema.kernels.arrays import ALIGNMENT_BYTES, Array, Launcher, address, check_apart, check_array
from salema.kernels.compile import Variant
from salema.kernels.errors import ArgumentError

_THREADS = 256
_EMA_ELEMENTS = 8  # per thread
_FLOATS: tuple[type[np.generic], ...] = (np.float16, np.float32)
_C_TYPES = {np.dtype(np.float16): "u16", np.dtype(np.float32): "float"}


def _ema_variant(x: str, *, residual: bool, relu: bool, rectified: bool) -> Variant:
    flags = {"RESIDUAL": residual, "RELU": relu, "RECTIFIED": rectified}
    return Variant("ema_update", {"X": x, **{name: str(int(flag)) for name, flag in flags.items()}})


EMA_VARIANTS = tuple(
    _ema_variant(x, residual=residual, relu=relu, rectified=rectified)
    for x in _C_TYPES.values()
    for residual, relu, rectified in product((False, True), repeat=3)
    if not rectified or (relu and not residual)
)
"""All variants of the kernel."""


def ema_update(
    launcher: Launcher,
    state: Array,
    x: Array,
    mix: Array,
    out: Array,
    *,
    residual: Array | None = None,
    relu: bool = True,
    rectified: bool = False,
) -> None:
    """Moves the state towards a layer's output in place, and writes what the next layer reads, in one pass.

    Shapes and types are those of `twins.ema.ema_update`. Addresses of the large arrays must be multiples of 16. `out`
    may be the same array as `x` or `residual`, and must not overlap them otherwise.

    Raises:
        ArgumentError: an argument has a wrong type, shape, device or alignment, or overlaps another; or `rectified` is
            given with a residual or without `relu`.
    """
    _check_ema(launcher, state, x, mix, out, residual)
    if rectified and (residual is not None or not relu):
        raise ArgumentError("rectified: the state is kept after the ReLU; that takes relu, and no residual before it")
    total = prod(state.shape)
    if not total:
        return
    variant = _ema_variant(_C_TYPES[x.dtype], residual=residual is not None, relu=relu, rectified=rectified)
    sizes = (total, prod(state.shape[1:]))
    launcher.launch(
        variant,
        (-(-total // (_THREADS * _EMA_ELEMENTS)), 1, 1),
        (_THREADS, 1, 1),
        [*(address(array) for array in (state, x, mix, out, residual)), *(np.uint32(size) for size in sizes)],
    )


def _check_ema(launcher: Launcher, state: Array, x: Array, mix: Array, out: Array, residual: Array | None) -> None:
    device, aligned = launcher.device, ALIGNMENT_BYTES
    check_array("state", state, [np.float32], (None, None, None, None), device, alignment_bytes=aligned)
    check_array("x", x, _FLOATS, state.shape, device, alignment_bytes=aligned)
    check_array("mix", mix, [np.float32], state.shape[:1], device, alignment_bytes=4)
    check_array("out", out, [x.dtype.type], state.shape, device, alignment_bytes=aligned)
    if residual is not None:
        check_array("residual", residual, [x.dtype.type], state.shape, device, alignment_bytes=aligned)
    # Each thread reads its own elements of x and residual before it writes them to out.
    in_place = [array for array in (x, residual) if array is not None and _same_place(array, out)]
    others: dict[str, Array | None] = {"x": x, "mix": mix, "residual": residual}
    check_apart({"state": state}, {**others, "out": out})
    check_apart({"out": out}, {name: None if array in in_place else array for name, array in others.items()})


def _same_place(first: Array, second: Array) -> bool:
    return first.address == second.address and first.dtype == second.dtype
