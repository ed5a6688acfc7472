"""Runs kernels on a GPU through PyCUDA. They are compiled on first use, then kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from salema.kernels.compile import Variant, load_kernel
from salema.kernels.device.cuda import CudaDevice

_FORMATS = {np.dtype(np.uint64): "P", np.dtype(np.uint32): "I", np.dtype(np.int32): "i", np.dtype(np.float32): "f"}


class CudaLauncher:
    """A `Launcher` for a GPU. Its calls need the device's `active()` around them.

    A kernel is compiled and loaded when it is first launched. That can't happen while a graph is recorded, so launch
    each kernel once before.
    """

    def __init__(self, device: CudaDevice) -> None:
        self.device = device
        self._loaded: dict[tuple[str, ...], Any] = {}

    def launch(
        self,
        variant: Variant,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic],
        *,
        together: bool = False,  # noqa: ARG002 - on a GPU they always can
    ) -> None:
        """See `Launcher.launch`."""
        key = (variant.name, *variant.arguments)
        if key not in self._loaded:
            cubin = load_kernel(variant, self.device.gpu.target)
            formats = "".join(_FORMATS[argument.dtype] for argument in arguments)
            self._loaded[key] = self.device.load_function(cubin, variant.name, formats)
        self.device.call(self._loaded[key], grid, block, arguments)

    def close(self) -> None:
        """See `Launcher.close`."""
        self._loaded.clear()
