"""Lists the NVIDIA GPUs through the driver's own library, which needs no other package.

Source: CUDA Driver API, sections "Initialization", "Device Management" and "Version Management".
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from salema.kernels.errors import BackendError, explain

_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18  # CUdevice_attribute
_NAME_BYTES = 256
_PCI_BYTES = 32


@dataclass(frozen=True)
class Gpu:
    """One GPU: number, name, compute capability such as `(8, 9)`, memory, and whether it shares the host's memory."""

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    integrated: bool

    @property
    def target(self) -> str:
        """The compute capability as `--target` takes it, such as `sm89`."""
        return "sm{}{}".format(*self.compute_capability)


def list_gpus() -> list[Gpu]:
    """Returns the visible GPUs, at least one.

    Raises:
        BackendError: there is no driver, or no GPU is visible.
    """
    library = _driver()
    count = ctypes.c_int()
    _check(library, library.cuDeviceGetCount(ctypes.byref(count)))
    if not count.value:
        raise BackendError(explain("no CUDA-capable device is detected"))
    return [_describe(library, index) for index in range(count.value)]


def pci_bus_id(index: int) -> str:
    """Returns a GPU's PCI address, such as `0000:3b:00.0`, by which other tools identify it.

    Numbers can't: CUDA counts the visible GPUs, the fastest first (`CUDA_VISIBLE_DEVICES`, `CUDA_DEVICE_ORDER`), and
    NVML counts all GPUs by their slot.

    Raises:
        BackendError: there is no driver, or no GPU of that number.
    """
    library = _driver()
    device = ctypes.c_int()
    _check(library, library.cuDeviceGet(ctypes.byref(device), index))
    name = ctypes.create_string_buffer(_PCI_BYTES)
    _check(library, library.cuDeviceGetPCIBusId(name, _PCI_BYTES, device))
    return name.value.decode()


def driver_cuda_version() -> str:
    """Returns the newest CUDA version that the driver supports, such as `13.0`.

    Raises:
        BackendError: there is no driver.
    """
    library = _library()
    version = ctypes.c_int()
    _check(library, library.cuDriverGetVersion(ctypes.byref(version)))
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _library() -> Any:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendError(explain(str(error))) from error


def _driver() -> Any:
    library = _library()
    _check(library, library.cuInit(0))
    return library


def _check(library: Any, result: int) -> None:
    if result:
        text = ctypes.c_char_p()
        library.cuGetErrorString(result, ctypes.byref(text))
        raise BackendError(explain((text.value or b"").decode(errors="replace") or f"CUDA error {result}"))


def _describe(library: Any, index: int) -> Gpu:
    device = ctypes.c_int()
    _check(library, library.cuDeviceGet(ctypes.byref(device), index))
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _check(library, library.cuDeviceGetName(name, _NAME_BYTES, device))
    memory = ctypes.c_size_t()
    _check(library, library.cuDeviceTotalMem_v2(ctypes.byref(memory), device))

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        _check(library, library.cuDeviceGetAttribute(ctypes.byref(value), which, device))
        return value.value

    capability = (attribute(_MAJOR), attribute(_MINOR))
    return Gpu(index, name.value.decode(errors="replace"), capability, memory.value, bool(attribute(_INTEGRATED)))
