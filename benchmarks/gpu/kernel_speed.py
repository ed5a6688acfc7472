"""How near the kernels come to the memory's speed: their bytes per second over those of a device-to-device copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from salema.kernels.arrays import Array, Launcher, place_array
from salema.kernels.device.interface import Buffer
from salema.kernels.errors import reason
from salema.kernels.ops.ema import ema_update
from salema.kernels.ops.postprocess import map_range, postprocess
from salema.kernels.ops.preprocess import preprocess
from salema.kernels.tables import linear_tables, resize_tables

if TYPE_CHECKING:
    from salema.kernels.device.cuda import CudaDevice

NETWORK_HW = (192, 256)
SOURCES_HW = {"360p": (360, 640), "1080p": (1080, 1920), "4K": (2160, 3840)}
# The state of the published network; and sizes on both sides of any L2 cache.
STATES = {"1 stream": (1, 512, 12, 16), "64 streams": (64, 512, 12, 16), "1024 streams": (1024, 512, 12, 16)}
_RUNS = 20
_REPEATS = 7


@dataclass(frozen=True)
class KernelSpeed:
    """One kernel at one size.

    Attributes:
        kernel: its name and types.
        size: of its data, by name.
        mbytes: what it must read and write at least, in 10**6 bytes.
        us: microseconds of a launch, the median of repeats, each the mean of launches in a row.
        share_of_copy: its bytes per second over those of a device-to-device copy of as many bytes.
        torch_us: microseconds of the plain PyTorch operations that it replaces; None where not measured.
        torch_error: why PyTorch could not be measured.
    """

    kernel: str
    size: str
    mbytes: float
    us: float
    share_of_copy: float
    torch_us: float | None = None
    torch_error: str | None = None


@dataclass(frozen=True)
class NotMeasured:
    """A kernel at a size that could not be timed here, such as one that is too large; see `KernelSpeed`."""

    kernel: str
    size: str
    error: str


def torch_ema_update(
    state: torch.Tensor, x: torch.Tensor, mix: torch.Tensor, residual: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same update as one would write it in PyTorch; returns the new state, and what the next layer reads."""
    weight = mix[:, None, None, None]
    fresh = x.float()
    state = torch.where(weight == 1, fresh, state + weight * (fresh - state))
    return state, torch.relu(state + residual.float()).to(x.dtype)


def torch_ema_us(shape: tuple[int, ...], dtype: np.dtype[Any]) -> float:
    """Times `torch_ema_update` on the GPU, in microseconds: the median of repeats, each the mean of calls in a row."""
    kind = getattr(torch, dtype.name)
    x, residual = (torch.rand(shape, dtype=kind, device="cuda") for _ in range(2))
    state, mix = torch.rand(shape, device="cuda"), torch.rand(shape[0], device="cuda")
    event: Any = torch.cuda.Event
    start, end = (event(enable_timing=True) for _ in range(2))
    side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side):
        torch_ema_update(state, x, mix, residual)
    torch.cuda.synchronize()
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # recorded, as ours are: eager launches would count the host's time
        for _ in range(_RUNS):
            state, _ = torch_ema_update(state, x, mix, residual)
    times = []
    for _ in range(_REPEATS + 1):  # the first warms up
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1e3 * start.elapsed_time(end) / _RUNS)
    return float(np.median(times[1:]))


class KernelBench:
    """Times kernels on a device, with the memory they need."""

    def __init__(self, device: CudaDevice, launcher: Launcher, *, with_torch: bool) -> None:
        self._device, self._launcher = device, launcher
        self._with_torch = with_torch  # on a GPU
        self._buffers: list[Buffer] = []

    def measure(self) -> Iterator[KernelSpeed | NotMeasured]:
        """Times every kernel at every size, one after the other. Needs the device's `active()` around it."""
        for kernel, size, timed in self._cases():
            try:
                yield timed()
            except Exception as error:  # noqa: BLE001, PERF203 - PyCUDA's, PyTorch's and ours have no common base
                yield NotMeasured(kernel, size, f"{type(error).__name__}: {reason(error)}")
            finally:
                self.free()

    def _cases(self) -> Iterator[tuple[str, str, Callable[[], KernelSpeed]]]:
        for size, shape in STATES.items():
            for dtype in map(np.dtype, (np.float16, np.float32)):
                yield f"ema_update {dtype}", size, partial(self._ema, size, shape, dtype)
        for size, source_hw in SOURCES_HW.items():
            yield "preprocess BGR", size, partial(self._preprocess, size, source_hw)
            yield "postprocess overlay", size, partial(self._overlay, size, source_hw)
        yield "map_range", "192x256", self._map_range

    def _ema(self, size: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> KernelSpeed:
        x, out, residual = (self._random(shape, dtype) for _ in range(3))
        state, mix = (self._random(part, np.dtype(np.float32)) for part in (shape, shape[:1]))
        work = lambda: ema_update(self._launcher, state, x, mix, out, residual=residual)  # noqa: E731
        speed = self._record(f"ema_update {dtype}", size, 3 * x.nbytes + 2 * state.nbytes, work)
        if not self._with_torch:
            return speed
        try:
            return replace(speed, torch_us=torch_ema_us(shape, dtype))
        except Exception as error:  # noqa: BLE001 - its memory ran out, or it has no CUDA; ours was timed all the same
            return replace(speed, torch_error=reason(error))
        finally:
            torch.cuda.empty_cache()

    def _preprocess(self, size: str, source_hw: tuple[int, int]) -> KernelSpeed:
        source, out = (self._random((*hw, 3), np.dtype(np.uint8)) for hw in (source_hw, NETWORK_HW))
        tables = resize_tables(source_hw, NETWORK_HW).placed(self._place)
        work = lambda: preprocess(self._launcher, source, out, tables)  # noqa: E731
        return self._record("preprocess BGR", size, source.nbytes + out.nbytes, work)

    def _overlay(self, size: str, source_hw: tuple[int, int]) -> KernelSpeed:
        frame, out = (self._random((*source_hw, 3), np.dtype(np.uint8)) for _ in range(2))
        saliency = self._random(NETWORK_HW, np.dtype(np.float32))
        limits = self._place(np.array([0, 1], np.float32))
        colours = self._random((256, 3), np.dtype(np.uint8))
        tables = linear_tables(NETWORK_HW, source_hw).placed(self._place)
        options: dict[str, Any] = {"view": "overlay", "frame": frame, "colours": colours, "tables": tables}
        work = lambda: postprocess(self._launcher, saliency, limits, out, **options)  # noqa: E731
        return self._record("postprocess overlay", size, frame.nbytes + out.nbytes + saliency.nbytes, work)

    def _map_range(self) -> KernelSpeed:
        saliency = self._random((1, *NETWORK_HW), np.dtype(np.float32))
        out = self._random((1, 2), np.dtype(np.float32))
        work = lambda: map_range(self._launcher, saliency, out)  # noqa: E731
        return self._record("map_range", "192x256", saliency.nbytes, work)

    def _record(self, kernel: str, size: str, nbytes: int, work: Callable[[], None]) -> KernelSpeed:
        source, target = self._device.allocate(nbytes // 2 + 1), self._device.allocate(nbytes // 2 + 1)
        self._buffers += [source, target]
        work()  # compiles it
        own = self._recorded(work)
        copy = self._recorded(lambda: self._device.copy(target.address, source.address, nbytes // 2))
        # In turns, so that both meet the same clocks; a copy of half the bytes moves as many.
        pairs = [(self._us(own), self._us(copy)) for _ in range(_REPEATS + 1)][1:]  # the first warms up
        share = float(np.median([copied / taken for taken, copied in pairs]))
        return KernelSpeed(kernel, size, nbytes / 1e6, float(np.median([taken for taken, _ in pairs])), share)

    def _recorded(self, work: Callable[[], None]) -> Any:
        """Records launches in a row; launched one by one, the host's checks would outlast a small kernel."""

        def many() -> None:
            for _ in range(_RUNS):
                work()

        return self._device.capture(many)

    def _us(self, graph: Any) -> float:
        return 1e3 * self._device.elapsed_ms(lambda: self._device.launch(graph)) / _RUNS

    def _random(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Returns memory with random contents, floats in [0, 1): zeros may cost less."""
        rng = np.random.default_rng(0)
        block = rng.integers(0, 256, 1 << 16, np.uint8) if dtype == np.uint8 else rng.random(1 << 14).astype(dtype)
        count = prod(shape)
        return self._place(np.resize(block, count).reshape(shape))

    def _place(self, array: NDArray[Any]) -> Array:
        placed, buffer = place_array(self._device, array, self._launcher.device)
        self._buffers.append(buffer)
        return placed

    def free(self) -> None:
        """Gives the memory back."""
        for buffer in self._buffers:
            buffer.free()
        self._buffers.clear()
