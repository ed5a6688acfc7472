"""The network in PyTorch, frame by frame, with the state on the device: the true maps, and what others would run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from salema.export.graph.models import SaliencyStep
from salema.export.graph.to_onnx import DTYPES
from salema.export.weights.architecture import Architecture
from salema.runtime.spec import ModelSpec

_DTYPES = {**DTYPES, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class TorchOptions:
    """How PyTorch runs it: in `fp32`, `fp16` or `bf16`, with weights, and so activations, channels-last or not."""

    precision: str = "fp32"
    channels_last: bool = False
    compiled: bool = False


class TorchStream:
    """A batch of videos in PyTorch, eager unless the options say otherwise. TF32 is off: float32 means float32."""

    def __init__(
        self,
        architecture: Architecture,
        weights: Mapping[str, torch.Tensor],
        spec: ModelSpec,
        options: TorchOptions,
        device: str,
        streams: int = 1,
    ) -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        model: Any = SaliencyStep(architecture, weights, _DTYPES[options.precision]).eval().to(device)
        if options.channels_last:
            model = model.to(memory_format=torch.channels_last)
        self._model: Any = torch.compile(model) if options.compiled else model
        self._device, self._spec, self._channels_last = device, spec, options.channels_last
        self._streams = streams
        self.reset()

    def reset(self) -> None:
        """Empties the memory for a new video."""
        self._first = True
        shapes = [(self._streams, *state.shape_chw) for state in self._spec.states]
        self._states = [torch.zeros(shape, device=self._device) for shape in shapes]

    def infer(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Takes frames `[N, H, W, 3]`; returns maps `[N, H, W]`."""
        with torch.inference_mode():
            saliency, *self._states = self._model(
                self._input(frames).to(self._device), *self._states, *self._mix(len(frames))
            )
            maps: NDArray[np.float32] = saliency[:, 0].cpu().numpy()
        self._first = False
        return maps

    def states(self) -> dict[str, NDArray[np.float32]]:
        """Returns copies of the states on the host, by name."""
        return {spec.name: state.cpu().numpy() for spec, state in zip(self._spec.states, self._states, strict=True)}

    def close(self) -> None:
        """Frees the network."""
        self._model, self._states = None, []

    def _input(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        given = torch.from_numpy(frames)
        if self._channels_last:
            return given
        # A frame in memory order, seen as NCHW, is channels-last, and every layer would follow it.
        return given.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)

    def _mix(self, streams: int) -> list[torch.Tensor]:
        if self._spec.coefficient is None:
            return []
        value = 1.0 if self._first else self._spec.coefficient
        return [torch.full((streams,), value, device=self._device)]


class TorchGraphStream(TorchStream):
    """The same as a CUDA graph, with fixed tensors; at its end the states are copied back.

    Streams and graphs are those of PyTorch's current GPU, which is the first one unless it is told.
    """

    def record(self) -> None:
        """Records the step, and empties the memory."""
        with torch.cuda.device(self._device):
            self._record()

    def _record(self) -> None:
        self.reset()
        size = (self._streams, self._spec.height, self._spec.width, 3)
        self._frame = self._input(np.zeros(size, np.uint8)).to(self._device)
        self._host = torch.zeros(size, dtype=torch.uint8, pin_memory=True)
        self._mix_in = self._mix(self._streams)
        side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.inference_mode():
            for _ in range(3):  # cuDNN chooses its algorithms
                self._model(self._frame, *self._states, *self._mix_in)
        torch.cuda.current_stream().wait_stream(side)
        self._graph: Any = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph), torch.inference_mode():
            self._saliency, *after = self._model(self._frame, *self._states, *self._mix_in)
            for state, value in zip(self._states, after, strict=True):
                state.copy_(value)

    def reset(self) -> None:
        """Empties the memory; once recorded, in the tensors that the graph uses."""
        if not hasattr(self, "_graph"):
            super().reset()
            return
        self._first = True
        for state in self._states:
            state.zero_()

    def infer(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Takes frames `[N, H, W, 3]`; returns maps `[N, H, W]`."""
        with torch.cuda.device(self._device), torch.inference_mode():
            self._host.copy_(torch.from_numpy(frames))
            self._frame.copy_(self._host, non_blocking=True)
            for tensor in self._mix_in:
                tensor.fill_(1.0 if self._first else self._spec.coefficient or 0)
            self._graph.replay()
            maps: NDArray[np.float32] = self._saliency[:, 0].cpu().numpy()
        self._first = False
        return maps
