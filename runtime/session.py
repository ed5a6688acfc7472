"""The interface of every backend."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from salema.runtime.closing import Closing
from salema.runtime.errors import BackendError, UsageError
from salema.runtime.spec import ModelSpec

if TYPE_CHECKING:
    from salema.runtime.postprocess import Pictures, ToDraw

States = tuple[Any, ...]
"""Handles of the backend that made them (OrtValue, device buffer, array), in the order of `spec.states`."""

BACKENDS = (
    *("auto", "tensorrt", "tensorrt-rtx", "onnxruntime", "onnxruntime-tensorrt"),
    *("ncnn", "openvino", "openvino-bf16"),
)
DEVICES = ("auto", "cpu", "cuda", "cuda:N")
DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")


class Session(Closing):
    """One loaded model. It keeps no states: the caller carries them from step to step.

    States are float32 arrays, unless a session overrides `from_host` and `values_of`.
    """

    spec: ModelSpec
    backend: str
    """One of `BACKENDS`, except `auto`."""
    device: str
    """`cpu`, `cuda`, or the GPU's name."""
    runs_on: str
    """The library and its version, the device, and how it computes there, for people."""
    reason = ""
    """Why `auto` chose this backend and no other; empty if the user named the backend."""
    keeps_states = True
    """Whether states stay valid after a later step; if not, only those of the last step are."""
    is_open = True

    @property
    def computes_in(self) -> str:
        """The precision of the arithmetic, which may differ from the model's own."""
        return self.spec.precision

    @property
    def description(self) -> str:
        """`runs_on` and `reason`, for people."""
        return self.runs_on + (f" (auto: {self.reason})" if self.reason else "")

    @abstractmethod
    def step(
        self, frames: NDArray[np.uint8], states: States, mix: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], States]:
        """Runs one time step of N independent streams.

        Args:
            frames: BGR `[N, H, W, 3]` at network size.
            states: what `from_host` or the step before returned; the step does not change them.
            mix: `[N]`, weight of the new frame; 1 starts a stream anew. A network without an EMA ignores it.

        Returns:
            The sigmoid maps `[N, H, W]`, and the states after the step, still on the device.
        """

    def abort(self) -> None:
        """Makes the step that another thread runs fail, if the backend can. The states that it was given stay valid."""

    def check_open(self) -> None:
        """Refuses to go on with a closed model.

        Raises:
            UsageError: the model is closed.
        """
        if not self.is_open:
            raise UsageError("the model is closed; load it again")

    def check_streams(self, streams: int) -> None:
        """Refuses a number of streams that the model can't step: all but engines take any that the graph takes.

        Raises:
            UsageError: it is an engine that was built for others.
        """

    def from_host(self, arrays: Mapping[str, NDArray[np.float32]]) -> States:
        """Puts states `{name: [N, C, H, W]}` on the device."""
        self.check_open()
        return tuple(np.array(arrays[state.name], np.float32) for state in self.spec.states)

    def to_host(self, states: States) -> dict[str, NDArray[np.float32]]:
        """Copies states to the host as `{name: [N, C, H, W]}`."""
        self.check_open()
        return {state.name: self.values_of(value).copy() for state, value in zip(self.spec.states, states, strict=True)}

    def gather(self, rows: Sequence[tuple[States, int]]) -> States:
        """Puts streams of different states together; those states are not changed.

        Args:
            rows: for each stream of the result, the states that hold it, and its place among their streams.
        """
        self.check_open()
        kept = {
            state.name: np.stack([self.values_of(states[index])[row] for states, row in rows])
            for index, state in enumerate(self.spec.states)
        }
        return self.from_host(kept)

    def values_of(self, state: Any) -> NDArray[np.float32]:
        """Returns one state's values `[N, C, H, W]` on the host; may be a view of the session's memory."""
        values: NDArray[np.float32] = state
        return values

    def close(self) -> None:
        """Frees the model."""
        self.is_open = False


def step_error(library: str, error: Exception, why: str) -> Exception:
    """Returns what to raise in place of an error that a library raised in a step; `why` is its message, in short."""
    if isinstance(error, MemoryError) or "memory" in str(error):
        return MemoryError(str(error))  # `exit_on_error` says what to do
    return BackendError(f"{library} can't run the model ({why}); take another --backend")


@runtime_checkable
class PictureSession(Protocol):
    """A `Session` that also resizes source frames and draws pictures, on the device where the network runs."""

    def step_pictures(
        self, to_draw: Mapping[int, ToDraw], states: States, mix: NDArray[np.float32]
    ) -> tuple[dict[int, Pictures], States]:
        """Runs one step on source frames, and draws pictures of them.

        Args:
            to_draw: the streams' frames. A stream that is left out steps on the frame that it had before, or on any;
                what comes of it must be dropped.
            states: see `Session.step`.
            mix: `[N]`, see `Session.step`.

        Returns:
            The pictures of each stream in `to_draw`, and the states after the step, still on the device.
        """
