"""NumPy twin of the kernel `ema_update`: the same arguments and roundings, to the bit.

The kernel is checked against it. A split model on the CPU (`runtime/backends/ort_split_session.py`) runs it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ema_update(
    state: NDArray[np.float32],
    x: NDArray[Any],
    mix: NDArray[np.float32],
    out: NDArray[Any],
    *,
    residual: NDArray[Any] | None = None,
    relu: bool = True,
    rectified: bool = False,
) -> None:
    """Moves the state towards a layer's output, and writes what the next layer reads.

    `state` becomes `x` where `mix` is 1 (a select, which also clears a NaN), else `state + mix * (x - state)`, in
    float32; `out = state + residual`, through a ReLU if asked.

    Args:
        state: float32 `[N, C, H, W]`, or with channels last, updated in place.
        x: float16 or float32, shaped as `state`: the layer's output.
        mix: float32 `[N]`, weight of the new frame.
        out: of `x`'s type, shaped as `state`: what the next layer reads.
        residual: of `x`'s type, shaped as `state`: what is added to the state.
        relu: whether a ReLU follows the layer.
        rectified: whether the state too is kept after that ReLU; without a residual only.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # as a GPU: a NaN or an infinity is a value
        fresh = x.astype(np.float32)
        weight = mix[:, None, None, None]
        after = np.where(weight == 1, fresh, state + weight * (fresh - state))
        state[:] = _rectify(after) if rectified else after
        after = state if residual is None else state + residual.astype(np.float32)
        out[:] = _rectify(after) if relu else after


def _rectify(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(values < 0, np.float32(0), values)
