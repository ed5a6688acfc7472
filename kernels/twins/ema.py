"""NumPy twin of the kernel `ema_update`, equal to the bit.

Split models on the CPU (`runtime/backends/ort_split_session.py`) run it.
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

    In float32, `state` becomes `x` where `mix` is 1 (a select, which also clears a NaN), else
    `state + mix * (x - state)`. Then `out` is `state + residual`, after a ReLU if `relu`.

    Args:
        state: float32 `[N, C, H, W]` or `[N, H, W, C]`, updated in place.
        x: float16 or float32, of `state`'s shape: the layer's output.
        mix: float32 `[N]`, weight of the new frame.
        out: of `x`'s type and `state`'s shape: the next layer's input.
        residual: of `x`'s type and `state`'s shape: added to the state.
        relu: whether a ReLU follows the layer.
        rectified: whether the state itself is kept after that ReLU; not with a residual.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # a GPU computes on with NaN and infinity too
        fresh = x.astype(np.float32)
        weight = mix[:, None, None, None]
        after = np.where(weight == 1, fresh, state + weight * (fresh - state))
        state[:] = _rectify(after) if rectified else after
        after = state if residual is None else state + residual.astype(np.float32)
        out[:] = _rectify(after) if relu else after


def _rectify(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(values < 0, np.float32(0), values)
