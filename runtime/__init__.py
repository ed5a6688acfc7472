"""Runs an exported model, frame by frame. Imports neither torch nor onnx."""

from __future__ import annotations

from typing import TYPE_CHECKING

from salema.runtime.session import open_session
from salema.runtime.stream import SaliencyStream

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SaliencyStream", "load", "open_session"]


def load(
    model: str | Path = "salema-model", *, backend: str = "auto", device: str = "auto", streams: int | None = None
) -> SaliencyStream:
    """Opens an exported model as a stream.

    Args:
        model: the folder that `salema-export` wrote.
        backend: `auto` or `onnxruntime`.
        device: `auto`, `cpu` or `cuda`.
        streams: independent videos side by side; None takes the model's batch (1 where it is free).

    Raises:
        SalemaError: see `open_session` and `SaliencyStream`.
    """
    session = open_session(model, backend, device)
    return SaliencyStream(session, session.spec.batch or 1 if streams is None else streams)
