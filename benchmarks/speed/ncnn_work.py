"""The multiplications that ncnn does in each layer: it chooses among three forms of Winograd's method by layer and CPU.

In FP32 the form is found by trial. A layer of the same parameters is run as the session would, then with one form
allowed: the form of which the result is equal to the bit is the one. In INT8 all are equal, so it is read in ncnn's
source (1.0.20260114, `Convolution_x86::create_pipeline_int8_x86`): F(4,3), which multiplies in 16 bits.
"""

from __future__ import annotations

import math
import platform
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.speed.work import DIRECT, LayerWork, Work, taps_inside
from salema.runtime.backends.ncnn_session import load_into, load_net, to_mat

_TILES = {"F(6,3)": 6, "F(4,3)": 4, "F(2,3)": 2}  # outputs of a tile along an axis, which takes two inputs more
_OPTIONS = {form: f"use_winograd{tile}3_convolution" for form, tile in _TILES.items()}
_KERNEL = 3  # the only size that it has Winograd's method for
_NO_WINOGRAD = 64  # a bit of a layer's mask (parameter 31)
_LEAST_CHANNELS = 8  # more than these on either side
_X86 = ("x86_64", "amd64")
_KEYS = {"out": "0", "kernel": "1", "pad": "4", "weights": "6", "int8": "8", "mask": "31", "shape": "-23330"}


def count_ncnn_work(param: str, batch: int) -> Work:
    """Counts the work of a step of so many streams, one after the other, from the layers in ncnn's `.param` file."""
    layers = []
    for line in param.splitlines():
        if line.startswith("Convolution "):
            _, name, *rest = line.split()
            layers.append(_layer(name, " ".join(part for part in rest if "=" in part), batch))
    return Work(tuple(layers))


def _layer(name: str, parameters: str, batch: int) -> LayerWork:
    values = dict(part.split("=") for part in parameters.split())
    out, kernel, pad, weights = (int(values[_KEYS[key]]) for key in ("out", "kernel", "pad", "weights"))
    _, _, width, height, _ = map(int, values[_KEYS["shape"]].split(","))
    channels, is_int8 = weights // out // kernel**2, values.get(_KEYS["int8"], "0") != "0"
    method = _int8_method(out, channels, kernel, int(values.get(_KEYS["mask"], 0))) if is_int8 else _method(parameters)
    tile = _TILES.get(method or "")
    if tile is None:
        each = math.prod(taps_inside(size, size, kernel, pad) for size in (height, width))
    else:
        each = math.prod(math.ceil(size / tile) * (tile + 2) for size in (height, width))
    return LayerWork(
        name,
        2 * batch * height * width * weights,
        2 * batch * each * channels * out,
        batch * height * width * (channels + out) + weights,
        is_int8,
        method,
        "int16" if is_int8 and tile else None,
    )


def _int8_method(out: int, channels: int, kernel: int, mask: int) -> str | None:
    if platform.machine().lower() not in _X86:
        return None
    takes_winograd = kernel == _KERNEL and max(out, channels) > _LEAST_CHANNELS and not mask & _NO_WINOGRAD
    return "F(4,3)" if takes_winograd else DIRECT


@cache
def _method(parameters: str) -> str | None:
    """Returns the method of a float layer with these parameters; None if its result is that of none."""
    values = dict(part.split("=") for part in parameters.split())
    out, kernel, weights = (int(values[_KEYS[key]]) for key in ("out", "kernel", "weights"))
    _, _, width, height, _ = map(int, values[_KEYS["shape"]].split(","))
    channels = weights // out // kernel**2
    rng = np.random.default_rng(0)
    given = rng.standard_normal((channels, height, width), np.float32)
    param = (
        f"7767517\n2 2\nInput in 0 1 in 0={width} 1={height} 2={channels}\nConvolution conv 1 1 in out {parameters}\n"
    )
    # Zeros say that the weights are float32; the biases follow them.
    parts = [bytes(4), rng.standard_normal(weights + out, np.float32).astype("<f4").tobytes()]
    as_chosen = load_net(param, parts)
    expected = _result(as_chosen, given)
    for form in (DIRECT, *_TILES):  # direct first: a layer that can't take a form ignores it
        if np.array_equal(_result(load_into(_like(as_chosen, form), param, parts), given), expected):
            return form
    return None


def _like(other: Any, form: str) -> Any:
    """Returns an empty net with the options of another, but one method for 3x3 convolutions."""
    net: Any = type(other)()
    for option in dir(net.opt):
        if option.startswith("use_") or option == "num_threads":
            setattr(net.opt, option, getattr(other.opt, option))
    net.opt.use_winograd_convolution = form != DIRECT
    for name, option in _OPTIONS.items():
        setattr(net.opt, option, name == form)
    return net


def _result(net: Any, given: NDArray[np.float32]) -> NDArray[np.float32]:
    extractor = net.create_extractor()
    extractor.input("in", to_mat(given))
    return np.array(extractor.extract("out")[1])
