"""Runs an exported model, frame by frame. Imports neither torch nor onnx."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from salema.runtime.stream import SaliencyStream

__all__ = ["load"]

# ONNX Runtime 1.32 looks up Microsoft's servers and writes to the user's cache; after its import it is too late to ask.
# So it is asked here, which all our other modules that use it, and all our commands, pass first.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def load(
    model: str | Path = "salema-model",
    *,
    backend: str = "auto",
    device: str = "auto",
    streams: int | None = None,
    graphs: bool = True,
) -> SaliencyStream:
    """Opens an exported model as a stream.

    Args:
        model: the folder that `salema-export` wrote.
        backend: `auto`, `tensorrt`, `tensorrt-rtx`, `onnxruntime`, `onnxruntime-tensorrt`, `ncnn`, `openvino` or
            `openvino-bf16`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        streams: independent videos side by side; None takes the model's batch (1 where it is free).
        graphs: replay each step as a CUDA graph, where the backend can.

    Raises:
        SalemaError: see `open_session` and `SaliencyStream`.
    """
    # OpenCV takes 0.2 s to import, and the commands pass here on their way to --help.
    from pathlib import Path  # noqa: PLC0415

    from salema.runtime.backends.opening import open_session  # noqa: PLC0415
    from salema.runtime.stream import SaliencyStream  # noqa: PLC0415

    session = open_session(model, backend, device, graphs=graphs)
    try:
        return SaliencyStream(session, session.spec.batch or 1 if streams is None else streams, Path(model))
    except BaseException:
        session.close()
        raise
