"""Carries a step's data between host and device: the network's frame and map, or a source frame and its pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.kernels.arrays import Array, Launcher, place_array
from salema.kernels.device.interface import Buffer, Device
from salema.kernels.ops.postprocess import map_range, postprocess
from salema.kernels.ops.preprocess import preprocess
from salema.kernels.tables import linear_tables, resize_tables
from salema.runtime.postprocess import COLORMAPS, Look, Pictures, ToDraw
from salema.runtime.spec import ModelSpec

# A GPU does not cache mapped memory (CUDA for Tegra, "Memory Management"), so it suits data that is read once.
_MAPPED_BYTES = 4096


class HostTensor:
    """A tensor that is copied between host and device: page-locked host memory, and device memory of the same size.

    On integrated GPUs a small tensor has one memory only, which is mapped, unless many threads of the GPU read it.
    """

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: type[np.generic], *, mapped: bool = True) -> None:
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        mapped = mapped and device.integrated and nbytes <= _MAPPED_BYTES
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

    def __init__(self, tensors: StepTensors) -> None:
        self._tensors = tensors

    def before(self) -> None:
        """Puts the work before the network on the stream."""
        self._tensors["frame"].upload()

    def after(self) -> None:
        """Puts the work after the network on the stream."""
        self._tensors["saliency"].download()


class StepTensors:
    """What a step of N streams carries between host and device: frames, weights, maps, and source frames to draw.

    Calls need the device's `active()` around them.
    """

    def __init__(self, device: Device, launcher: Launcher) -> None:
        self._device, self._launcher = device, launcher
        self._tensors: dict[str, HostTensor] = {}
        self._pictures: dict[int, PictureJob] = {}

    def __getitem__(self, name: str) -> HostTensor:
        return self._tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def allocate(self, spec: ModelSpec, streams: int) -> dict[str, int]:
        """Allocates the tensors; returns their device addresses by name."""
        for name, (_, *rest) in spec.tensor_shapes.items():
            if name in {"frame", "mix", "saliency"}:
                shape = (streams, *(n or 0 for n in rest))
                self._tensors[name] = HostTensor(self._device, shape, np.uint8 if name == "frame" else np.float32)
        return {name: tensor.address for name, tensor in self._tensors.items()}

    def pictures(self, to_draw: Mapping[int, ToDraw], forget_graphs: Callable[[], None]) -> PictureJobs:
        """Returns the job that draws these streams' frames, and the last frame of each other that has had one.

        So the streams that are drawn may change from step to step, and the work stays the same. Another size or look
        replaces a stream's memory, and `forget_graphs` is called before.
        """
        for row, asked in to_draw.items():
            job = self._pictures.get(row)
            if job is None or job.key != PictureJob.key_of(asked):
                if job is not None:
                    forget_graphs()
                    self._pictures.pop(row).free()  # before the new one is made, in case that fails
                self._pictures[row] = job = PictureJob(self._device, self._launcher, self, row, asked)
            job.source.array[:] = asked.image_bgr
        return PictureJobs(self["saliency"], dict(self._pictures))

    def free(self) -> None:
        """Frees the memory."""
        for job in self._pictures.values():
            job.free()
        for tensor in self._tensors.values():
            tensor.free()
        self._pictures.clear()
        self._tensors.clear()


class PictureJobs:
    """Uploads the source frames of several streams; downloads what is wanted of each."""

    def __init__(self, saliency: HostTensor, jobs: Mapping[int, PictureJob]) -> None:
        self._saliency, self._jobs = saliency, jobs
        self.key: object = tuple((row, *job.key) for row, job in jobs.items())

    def before(self) -> None:
        """See `FrameJob.before`."""
        for job in self._jobs.values():
            job.before()

    def after(self) -> None:
        """See `FrameJob.after`."""
        for job in self._jobs.values():
            job.after()
        if any(job.raw for job in self._jobs.values()):
            self._saliency.download()

    def results(self, rows: Iterable[int]) -> dict[int, Pictures]:
        """Returns copies of the maps and pictures of some streams. Call it once the stream is done."""
        return {row: self._jobs[row].result() for row in rows}


class PictureJob:
    """Uploads one stream's source frame; downloads its 8-bit map and, if wanted, a picture of it."""

    def __init__(self, device: Device, launcher: Launcher, tensors: StepTensors, row: int, asked: ToDraw) -> None:
        """Allocates the memory, and uploads the tables; `row` is the stream's place in the batch."""
        source_hw, look, self.raw = self.key = self.key_of(asked)
        self._device, self._launcher, self._look, self._row = device, launcher, look, row
        _, height, width, _ = tensors["frame"].array.shape
        self._tables_memory: list[Buffer] = []
        self._frame, self._saliency = tensors["frame"], tensors["saliency"]
        self.source = HostTensor(device, (*source_hw, 3), np.uint8)
        self._range = HostTensor(device, (1, 2), np.float32, mapped=False)
        self._grey = HostTensor(device, (height, width), np.uint8)
        self._image = None if look.view is None else HostTensor(device, (*source_hw, 3), np.uint8)
        self._resize = resize_tables(source_hw, (height, width)).placed(self._place)
        self._linear = linear_tables((height, width), source_hw).placed(self._place)
        levels = np.arange(256, dtype=np.uint8)[np.newaxis]
        self._colours = self._place(cv2.applyColorMap(levels, COLORMAPS[look.colormap])[0])
        self._fixed = self._place(np.array([0, 1], np.float32)) if look.normalise == "none" else None

    @staticmethod
    def key_of(asked: ToDraw) -> tuple[tuple[int, int], Look, bool]:
        """Returns what must be the same for a job to serve."""
        return (asked.image_bgr.shape[0], asked.image_bgr.shape[1]), asked.look, asked.raw

    def before(self) -> None:
        """See `FrameJob.before`."""
        self.source.upload()
        _, height, width, _ = self._frame.array.shape
        address = self._frame.address + self._row * self._frame.array[0].nbytes
        out = self._array(address, (height, width, 3), np.uint8)
        preprocess(self._launcher, self._whole(self.source), out, self._resize)

    def after(self) -> None:
        """See `FrameJob.after`."""
        _, _, height, width = self._saliency.array.shape
        address = self._saliency.address + self._row * self._saliency.array[0].nbytes
        saliency = self._array(address, (height, width), np.float32)
        maps = self._array(address, (1, height, width), np.float32)
        limits = self._fixed or self._array(self._range.address, (2,), np.float32)
        map_range(self._launcher, maps, self._whole(self._range))
        postprocess(self._launcher, saliency, limits, self._whole(self._grey), view="map8")
        if self._image is not None:
            self._draw(saliency, limits, self._whole(self._image))
            self._image.download()
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
        raw = self._saliency.array[self._row, 0].copy() if self.raw else None
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
