"""The network in PyTorch, frame by frame with the state on the device: the truth, and what others would run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from salema.export.models import SaliencyStep
from salema.export.to_onnx import DTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from salema.export.architecture import Architecture
    from salema.runtime.spec import ModelSpec


class TorchStream:
    """One batch of videos in PyTorch eager.

    TF32 stays off, so that float32 means float32.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: Mapping[str, torch.Tensor],
        spec: ModelSpec,
        precision: str,
        device: str,
    ) -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        self._model = SaliencyStep(architecture, weights, DTYPES[precision]).eval().to(device)
        self._device, self._spec = device, spec
        self.reset()

    def reset(self, streams: int = 1) -> None:
        """Starts anew."""
        self._first = True
        shapes = [(streams, *state.shape_chw) for state in self._spec.states]
        self._states = [torch.zeros(shape, device=self._device) for shape in shapes]

    def step(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Takes frames `[N, H, W, 3]`; returns maps `[N, H, W]`."""
        with torch.inference_mode():
            saliency, *self._states = self._model(
                torch.from_numpy(frames).to(self._device), *self._states, *self._mix(len(frames))
            )
            maps: NDArray[np.float32] = saliency[:, 0].cpu().numpy()
        self._first = False
        return maps

    def states(self) -> dict[str, NDArray[np.float32]]:
        """Copies the states to the host by name."""
        return {spec.name: state.cpu().numpy() for spec, state in zip(self._spec.states, self._states, strict=True)}

    def _mix(self, streams: int) -> list[torch.Tensor]:
        if self._spec.coefficient is None:
            return []
        value = 1.0 if self._first else self._spec.coefficient
        return [torch.full((streams,), value, device=self._device)]


class TorchGraphStream(TorchStream):
    """The same as a CUDA graph: fixed tensors, the states copied back at its end."""

    def record(self, streams: int = 1) -> None:
        """Records the step; the stream starts anew."""
        self.reset(streams)
        size = (streams, self._spec.height, self._spec.width, 3)
        self._frame = torch.zeros(size, dtype=torch.uint8, device=self._device)
        self._host = torch.zeros(size, dtype=torch.uint8, pin_memory=True)
        self._mix_in = self._mix(streams)
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

    def reset(self, streams: int = 1) -> None:
        """Starts anew; once recorded, in the tensors that the graph knows."""
        if not hasattr(self, "_graph"):
            super().reset(streams)
            return
        self._first = True
        for state in self._states:
            state.zero_()

    def step(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Takes frames `[N, H, W, 3]`; returns maps `[N, H, W]`."""
        with torch.inference_mode():
            self._host.copy_(torch.from_numpy(frames))
            self._frame.copy_(self._host, non_blocking=True)
            for tensor in self._mix_in:
                tensor.fill_(1.0 if self._first else self._spec.coefficient or 0)
            self._graph.replay()
            maps: NDArray[np.float32] = self._saliency[:, 0].cpu().numpy()
        self._first = False
        return maps
