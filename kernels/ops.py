"""The kernels as functions: every argument checked, then one launch. Their NumPy twins are in `reference.py`."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np

from salema.kernels.arrays import ALIGNMENT_BYTES, Array, Launcher, address, check_apart, check_array
from salema.kernels.compile import Variant

_THREADS = 256
_EMA_ELEMENTS = 8  # of one thread
_FLOATS: tuple[type[np.generic], ...] = (np.float16, np.float32)
_C_TYPES = {np.dtype(np.float16): "u16", np.dtype(np.float32): "float"}


def _ema_variant(x: str, out: str, *, bias: bool, residual: bool, relu: bool) -> Variant:
    flags = {"BIAS": bias, "RESIDUAL": residual, "RELU": relu}
    return Variant("ema_update", {"X": x, "OUT": out, **{name: str(int(flag)) for name, flag in flags.items()}})


EMA_VARIANTS = tuple(
    _ema_variant(x, out, bias=bias, residual=residual, relu=relu)
    for x, out in product(("u16", "float"), repeat=2)
    for bias, residual, relu in product((False, True), repeat=3)
)
"""Every variant that can be launched."""


def ema_update(
    launcher: Launcher,
    state: Array,
    x: Array,
    mix: Array,
    out: Array,
    *,
    bias: Array | None = None,
    residual: Array | None = None,
    relu: bool = True,
    channels_last: bool = False,
) -> None:
    """Moves the state towards a layer's output in place, and writes what the next layer reads, in one pass.

    Shapes, types and meaning are those of `reference.ema_update`. Addresses of the large arrays must be multiples of
    16. `out` may be `x` itself or `residual` itself, of the same type, and must not overlap them otherwise.

    Raises:
        ArgumentError: an argument has another type, shape, place or alignment, or overlaps another.
    """
    _check_ema(launcher, state, x, mix, out, bias, residual, channels_last=channels_last)
    total = prod(state.shape)
    if not total:
        return
    channels = state.shape[-1 if channels_last else 1]
    inner = 1 if channels_last else prod(state.shape[2:])
    variant = _ema_variant(
        _C_TYPES[x.dtype], _C_TYPES[out.dtype], bias=bias is not None, residual=residual is not None, relu=relu
    )
    sizes = (total, prod(state.shape[1:]), channels, inner)
    launcher.launch(
        variant,
        (-(-total // (_THREADS * _EMA_ELEMENTS)), 1, 1),
        (_THREADS, 1, 1),
        [*(address(array) for array in (state, x, mix, out, bias, residual)), *(np.uint32(size) for size in sizes)],
    )


def _check_ema(
    launcher: Launcher,
    state: Array,
    x: Array,
    mix: Array,
    out: Array,
    bias: Array | None,
    residual: Array | None,
    *,
    channels_last: bool,
) -> None:
    device, aligned = launcher.device, ALIGNMENT_BYTES
    check_array("state", state, [np.float32], (None, None, None, None), device, alignment_bytes=aligned)
    check_array("x", x, _FLOATS, state.shape, device, alignment_bytes=aligned)
    check_array("mix", mix, [np.float32], state.shape[:1], device, alignment_bytes=4)
    check_array("out", out, _FLOATS, state.shape, device, alignment_bytes=aligned)
    if bias is not None:
        check_array("bias", bias, [np.float32], (state.shape[-1 if channels_last else 1],), device, alignment_bytes=4)
    if residual is not None:
        check_array("residual", residual, [x.dtype.type], state.shape, device, alignment_bytes=aligned)
    # Each thread reads its own elements of x and residual before it writes them to out.
    in_place = [array for array in (x, residual) if array is not None and _same_place(array, out)]
    others: dict[str, Array | None] = {"x": x, "mix": mix, "bias": bias, "residual": residual}
    check_apart({"state": state}, {**others, "out": out})
    check_apart({"out": out}, {name: None if array in in_place else array for name, array in others.items()})


def _same_place(first: Array, second: Array) -> bool:
    return first.address == second.address and first.dtype == second.dtype
