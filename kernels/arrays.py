"""Arrays on a device, and the checks before a launch, as a kernel can't detect a wrong address."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from salema.kernels.compile import Variant
from salema.kernels.device.interface import Buffer, Device
from salema.kernels.errors import ArgumentError

ALIGNMENT_BYTES = 16  # for 128-bit accesses
_MOST_ELEMENTS = (1 << 31) - 1  # indices are 32-bit


@dataclass(frozen=True)
class Array:
    """Memory on a device, in C order. Devices are compared by identity."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    device: object = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * self.dtype.itemsize


class Launcher(Protocol):
    """Runs kernels: on a GPU, or in the tests on the CPU."""

    @property
    def device(self) -> object:
        """The device that arrays must be on."""

    def launch(
        self,
        variant: Variant,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic],
        *,
        together: bool = False,
    ) -> None:
        """Puts a kernel on the device's stream: `grid` blocks of `block` threads.

        Arguments are NumPy scalars, addresses `uint64`. `together`: the threads of a block wait for each other.
        """

    def close(self) -> None:
        """Frees the loaded kernels."""


def place_array(device: Device, array: NDArray[Any], owner: object) -> tuple[Array, Buffer]:
    """Copies an array to a device and waits for it; needs the device's `active()` around it.

    Returns the array there, with `owner` as its `device` (see `Launcher.device`), and its memory, which is to be freed.
    """
    staging, _ = device.allocate_host(array.nbytes, mapped=False)
    staging[:] = np.ascontiguousarray(array).view(np.uint8).ravel()
    buffer = device.allocate(array.nbytes)
    device.upload(buffer.address, staging)
    device.synchronize()
    return Array(buffer.address, array.shape, array.dtype, owner), buffer


def address(array: Array | None) -> np.uint64:
    """Returns an array's address as a kernel takes it; 0 for None."""
    return np.uint64(0 if array is None else array.address)


def check_array(
    name: str,
    array: Array,
    dtypes: Sequence[type[np.generic]],
    shape: tuple[int | None, ...],
    device: object,
    *,
    alignment_bytes: int = 1,
) -> None:
    """Checks an argument of a kernel.

    `name` is for the message. An axis of which any size will do is None in `shape`. The address must be a multiple of
    `alignment_bytes`.

    Raises:
        ArgumentError: a check fails.
    """
    if array.dtype.type not in dtypes:
        names = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise ArgumentError(f"{name}: {array.dtype.name} given, {names} expected")
    same = len(array.shape) == len(shape) and all(want in {None, n} for n, want in zip(array.shape, shape, strict=True))
    if not same or any(n < 0 for n in array.shape):
        expected = ", ".join("any" if n is None else str(n) for n in shape)
        raise ArgumentError(f"{name}: shape {array.shape} given, ({expected}) expected")
    if array.device is not device:
        raise ArgumentError(f"{name}: is on another device than the kernel")
    if math.prod(array.shape) > _MOST_ELEMENTS:
        raise ArgumentError(f"{name}: {math.prod(array.shape)} elements given, at most {_MOST_ELEMENTS} are possible")
    if array.nbytes and (not array.address or array.address % alignment_bytes):
        raise ArgumentError(f"{name}: address {array.address:#x} given, a multiple of {alignment_bytes} expected")


def check_apart(written: Mapping[str, Array], read: Mapping[str, Array | None]) -> None:
    """Raises ArgumentError if an array that is written overlaps another one."""
    others = [*written.items(), *((name, array) for name, array in read.items() if array is not None)]
    for name, array in written.items():
        for other_name, other in others:
            if other is array and other_name == name:
                continue
            if array.address < other.address + other.nbytes and other.address < array.address + array.nbytes:
                raise ArgumentError(f"{name}: overlaps {other_name}; each needs memory of its own")
