"""Carries a step's data between host and device: the network's frame and map, or a source frame and its pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.kernels.arrays import Array, Launcher, place_array
from salema.kernels.device.interface import Buffer, Device
from salema.kernels.ops.postprocess import map_range, postprocess
from salema.kernels.ops.preprocess import preprocess
from salema.kernels.tables import linear_tables, resize_tables
from salema.runtime.postprocess import COLORMAPS, Look, Pictures

# A GPU does not cache mapped memory (CUDA for Tegra, "Memory Management"), so it suits data that is read once.
_MAPPED_BYTES = 4096


class HostTensor:
    """A tensor that is copied between host and device: page-locked host memory, and device memory of the same size.

    On integrated GPUs a small tensor has one memory only, which is mapped.
    """

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        mapped = device.integrated and nbytes <= _MAPPED_BYTES
        self.bytes, address = device.allocate_host(nbytes, mapped=mapped)
        self.array: NDArray[Any] = self.bytes.view(dtype).reshape(shape)
        self._buffer = device.allocate(nbytes) if address is None else None
        self.address = (address or 0) if self._buffer is None else self._buffer.address
        self._device = device

    def upload(self) -> None:
        """Copies it to the device, in the stream's order; mapped memory needs no copy."""
        if self._buffer is not None:
            self._device.upload(self.address, self.bytes)

    def download(self) -> None:
        """Copies it to the host, in the stream's order; mapped memory needs no copy."""
        if self._buffer is not None:
            self._device.download(self.bytes, self.address)

    def free(self) -> None:
        """Frees the device memory."""
        if self._buffer is not None:
            self._buffer.free()


class FrameJob:
    """Uploads a frame at network size, and downloads its raw map."""

    key: object = "frame"

    def __init__(self, tensors: Mapping[str, HostTensor]) -> None:
        self._tensors = tensors

    def before(self) -> None:
        """Puts the work before the network on the stream."""
        self._tensors["frame"].upload()

    def after(self) -> None:
        """Puts the work after the network on the stream."""
        self._tensors["saliency"].download()

    def free(self) -> None:
        """Does nothing: the job has no memory of its own."""


class PictureJob:
    """Uploads a source frame of one size; downloads the 8-bit map and, if wanted, a picture and the raw map."""

    def __init__(
        self,
        device: Device,
        launcher: Launcher,
        tensors: Mapping[str, HostTensor],
        source_hw: tuple[int, int],
        look: Look,
        *,
        raw: bool,
    ) -> None:
        """Allocates the memory, and uploads the tables."""
        self.key = (source_hw, look, raw)
        self._device, self._launcher, self._look, self._raw = device, launcher, look, raw
        _, height, width, _ = tensors["frame"].array.shape
        self._tables_memory: list[Buffer] = []
        self._frame, self._saliency = tensors["frame"], tensors["saliency"]
        self.source = HostTensor(device, (*source_hw, 3), np.uint8)
        self._range = HostTensor(device, (1, 2), np.float32)
        self._grey = HostTensor(device, (height, width), np.uint8)
        self._image = None if look.view is None else HostTensor(device, (*source_hw, 3), np.uint8)
        self._resize = resize_tables(source_hw, (height, width)).placed(self._place)
        self._linear = linear_tables((height, width), source_hw).placed(self._place)
        levels = np.arange(256, dtype=np.uint8)[np.newaxis]
        self._colours = self._place(cv2.applyColorMap(levels, COLORMAPS[look.colormap])[0])
        self._fixed = self._place(np.array([0, 1], np.float32)) if look.normalise == "none" else None

    def before(self) -> None:
        """See `FrameJob.before`."""
        self.source.upload()
        _, height, width, _ = self._frame.array.shape
        out = self._array(self._frame.address, (height, width, 3), np.uint8)
        preprocess(self._launcher, self._whole(self.source), out, self._resize)

    def after(self) -> None:
        """See `FrameJob.after`."""
        _, _, height, width = self._saliency.array.shape
        saliency = self._array(self._saliency.address, (height, width), np.float32)
        maps = self._array(self._saliency.address, (1, height, width), np.float32)
        limits = self._fixed or self._array(self._range.address, (2,), np.float32)
        map_range(self._launcher, maps, self._whole(self._range))
        postprocess(self._launcher, saliency, limits, self._whole(self._grey), view="map8")
        if self._image is not None:
            self._draw(saliency, limits, self._whole(self._image))
            self._image.download()
        if self._raw:
            self._saliency.download()
        self._range.download()
        self._grey.download()

    def _draw(self, saliency: Array, limits: Array, image: Array) -> None:
        if self._look.view == "map":
            postprocess(self._launcher, saliency, limits, image, view="map", tables=self._linear)
            return
        postprocess(
            self._launcher,
            saliency,
            limits,
            image,
            view="overlay",
            frame=self._whole(self.source),
            colours=self._colours,
            tables=self._linear,
            opacity=self._look.opacity,
        )

    def result(self) -> Pictures:
        """Returns copies of the maps and the picture. Call it once the stream is done."""
        image = None if self._image is None else self._image.array.copy()
        if image is not None and self._look.view == "side-by-side":
            image = np.hstack([self.source.array, image])
        low, high = self._range.array[0]
        limits = (np.float32(0), np.float32(1)) if self._fixed else (low, high)
        raw = self._saliency.array[0, 0].copy() if self._raw else None
        return Pictures(self._grey.array.copy(), image, limits, (float(low), float(high)), raw)

    def free(self) -> None:
        """Frees the memory."""
        for tensor in (self.source, self._range, self._grey, self._image):
            if tensor is not None:
                tensor.free()
        for buffer in self._tables_memory:
            buffer.free()
        self._tables_memory.clear()

    def _place(self, table: NDArray[Any]) -> Array:
        placed, buffer = place_array(self._device, table, self._launcher.device)
        self._tables_memory.append(buffer)
        return placed

    def _whole(self, tensor: HostTensor) -> Array:
        return Array(tensor.address, tensor.array.shape, tensor.array.dtype, self._launcher.device)

    def _array(self, address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
        return Array(address, shape, np.dtype(dtype), self._launcher.device)
