"""NumPy twins of the kernels: the same names and arguments, the same roundings, to the bit.

They are what the kernels are checked against, and the path on a CPU where one is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def ema_update(
    state: NDArray[np.float32],
    x: NDArray[Any],
    mix: NDArray[np.float32],
    out: NDArray[Any],
    *,
    bias: NDArray[np.float32] | None = None,
    residual: NDArray[Any] | None = None,
    relu: bool = True,
    channels_last: bool = False,
) -> None:
    """Moves the state towards a layer's output, and writes what the next layer reads.

    `fresh = x + bias`; `state` becomes `fresh` where `mix` is 1 (a select, which also clears a NaN), else
    `state + mix * (fresh - state)`, in float32; `out = state + residual`, through a ReLU if asked.

    Args:
        state: float32 `[N, C, H, W]` (`[N, H, W, C]` with `channels_last`), updated in place.
        x: float16 or float32, shaped as `state`: the layer's output.
        mix: float32 `[N]`, weight of the new frame.
        out: float16 or float32, shaped as `state`: what the next layer reads.
        bias: float32 `[C]`, what the layer's convolution has left out.
        residual: of `x`'s type, shaped as `state`: what entered the layer.
        relu: whether a ReLU follows the layer.
        channels_last: the order of the elements.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # as a GPU: a NaN or an infinity is a value
        fresh = x.astype(np.float32)
        if bias is not None:
            fresh = fresh + (bias if channels_last else bias[:, None, None])
        weight = mix[:, None, None, None]
        state[:] = np.where(weight == 1, fresh, state + weight * (fresh - state))
        after = state if residual is None else state + residual.astype(np.float32)
        out[:] = np.where(after < 0, np.float32(0), after) if relu else after
