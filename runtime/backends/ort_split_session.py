"""A split model on the CPU: two ONNX Runtime sessions, and between them the EMA in NumPy, the kernel's twin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salema.kernels.twins.ema import ema_update
from salema.runtime.backends.ort_session import VERSION, load_part
from salema.runtime.cpu import threads_for
from salema.runtime.errors import reason
from salema.runtime.session import Session, States, step_error
from salema.runtime.spec import check_parts
from salema.runtime.wording import counted


class OrtSplitSession(Session):
    """A `Session` over the two graphs of a split model; states are arrays that no step changes."""

    def __init__(self, encoder: Path, decoder: Path, *, threads: int | None = None) -> None:
        """Loads both graphs; `threads` is as in `open_session`.

        Raises:
            ModelError: a file is corrupt, foreign or of a newer version, or the two are not of one model.
        """
        self._encoder: Any
        self._decoder: Any
        threads = threads_for(threads)
        self._encoder, part = load_part(encoder, threads)
        self._decoder, other = load_part(decoder, threads)
        check_parts(part, other)
        assert part.split is not None
        self._split = part.split
        self._dtype = np.dtype(part.tensor_dtype("averaged"))
        self._outputs = part.output_names
        self.spec = part.whole
        self.backend, self.device = "onnxruntime", "cpu"
        self.runs_on = f"ONNX Runtime {VERSION} on cpu, encoder and decoder apart, {counted(threads, 'thread')}"

    def step(
        self, frames: NDArray[np.uint8], states: States, mix: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], States]:
        """See `Session.step`."""
        self.check_open()
        (before,) = states
        outputs = self._run(self._encoder, self._outputs, {"frame": np.ascontiguousarray(frames)})
        passed = dict(zip(self._outputs, outputs, strict=True))
        after = before.copy()
        averaged = np.empty(after.shape, self._dtype)
        residual = passed[self._split.residual] if self._split.residual else None
        options = {"relu": self._split.relu, "rectified": self._split.rectified}
        ema_update(after, passed["fresh"], mix, averaged, residual=residual, **options)
        (saliency,) = self._run(self._decoder, ["saliency"], {"averaged": averaged})
        return saliency[:, 0], (after,)

    def _run(self, part: Any, outputs: Sequence[str], inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            arrays: list[NDArray[Any]] = part.run(outputs, inputs)
        except Exception as error:
            raise step_error(f"ONNX Runtime {VERSION}", error, reason(error)) from error
        return arrays

    def close(self) -> None:
        """See `Session.close`."""
        super().close()
        self._encoder = self._decoder = None
