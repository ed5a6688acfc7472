"""How fast libraries multiply matrices and copy memory on a device. These rates are no limits: see `peaks`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_CPU_SIZE, _GPU_SIZE = 1024, 8192
_COPY_BYTES = 1 << 28
_LEAST_S = 0.3
_REPEATS = 3
_EMULATED = 3  # times as slow as float32 in one call: more than a call's time differs from others


@dataclass(frozen=True)
class Rates:
    """The best of a few repeats; None or missing where it could not be measured.

    Attributes:
        product_operations_per_s: of a square matrix product by precision, two per multiplication.
        bytes_per_s: of a copy, bytes read plus bytes written.
        size: of the matrices.
        how: the libraries that were used.
    """

    product_operations_per_s: dict[str, float] = field(default_factory=dict)
    bytes_per_s: float | None = None
    size: int = 0
    how: str = ""


def measure_rates(device: str, precisions: set[str], most_s: float = _LEAST_S) -> Rates:
    """Measures with PyTorch; where it is not installed, with NumPy's float32 on the CPU.

    The device is `cpu`, `cuda` or `cuda:N`; precisions are `fp32`, `fp16`, `bf16` and `int8`. Each repeat may take
    `most_s` seconds, where that is less than what steady clocks need.
    """
    try:
        import torch  # noqa: PLC0415 - a machine that only runs models has none
    except ImportError:
        return _with_numpy(precisions, most_s) if device == "cpu" else Rates()
    if device != "cpu" and not torch.cuda.is_available():
        return Rates()
    size = _CPU_SIZE if device == "cpu" else _GPU_SIZE
    products = measure_products({"fp32", *precisions}, size, device, most_s)
    return Rates(products, _torch_copy(torch, device, most_s), size, f"PyTorch {torch.__version__}")


def measure_products(precisions: set[str], size: int, device: str, most_s: float = _LEAST_S) -> dict[str, float]:
    """Returns the operations per second of PyTorch's square matrix products, by precision; without emulated ones.

    Arguments are those of `measure_rates`; `size` is that of the matrices.
    """
    import torch  # noqa: PLC0415 - see above

    rates: dict[str, float] = {}
    for precision in ("fp32", *sorted(precisions - {"fp32"})):
        call = _torch_product(torch, precision, size, device)
        if call is None:
            continue
        # A product slower than float32's is emulated, says nothing about the device, and takes long.
        if rates and _seconds(call) > _EMULATED * 2 * size**3 / rates["fp32"]:
            continue
        rates[precision] = 2 * size**3 / _best_s(call, most_s)
    return {precision: rate for precision, rate in rates.items() if rate >= rates["fp32"]}


def _with_numpy(precisions: set[str], most_s: float) -> Rates:
    a, b = (np.ones((_CPU_SIZE, _CPU_SIZE), np.float32) for _ in range(2))
    products = {"fp32": 2 * _CPU_SIZE**3 / _best_s(lambda: a @ b, most_s)} if "fp32" in precisions else {}
    source, target = np.ones(_COPY_BYTES, np.uint8), np.empty(_COPY_BYTES, np.uint8)
    copy_s = _best_s(lambda: np.copyto(target, source), most_s)
    return Rates(products, 2 * _COPY_BYTES / copy_s, _CPU_SIZE, "NumPy")


def _torch_product(torch: Any, precision: str, size: int, device: str) -> Callable[[], object] | None:
    kinds = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.int8}
    a, b = (torch.ones((size, size), device=device).to(kinds[precision]) for _ in range(2))
    multiply = torch._int_mm if precision == "int8" else torch.mm  # noqa: SLF001 - PyTorch's only int8 product

    def call() -> None:
        multiply(a, b)
        if device != "cpu":
            torch.cuda.synchronize(device)

    try:
        call()
    except RuntimeError:  # not on this device
        return None
    return call


def _torch_copy(torch: Any, device: str, most_s: float) -> float:
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def call() -> None:
        target.copy_(source)
        if device != "cpu":
            torch.cuda.synchronize(device)

    return 2 * _COPY_BYTES / _best_s(call, most_s)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _best_s(call: Callable[[], object], most_s: float) -> float:
    """Returns the mean time of a call in the fastest of a few repeats, each `_LEAST_S` or `most_s` long."""
    call()
    best = float("inf")
    for _ in range(_REPEATS):
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < min(_LEAST_S, most_s):
            call()
            count += 1
        best = min(best, (time.perf_counter() - start) / count)
    return best
