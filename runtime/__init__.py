"""Runs an exported model, frame by frame. Imports neither torch nor onnx."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salema.runtime.stream import SaliencyStream

__all__ = ["load"]

# ONNX Runtime 1.32 looks up Microsoft's servers and writes to the user's cache, unless this is set before its import.
# It is set here because all our commands, and all our modules that use ONNX Runtime, import this package first.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def load(
    model: str | Path = "salema-model",
    *,
    backend: str = "auto",
    device: str = "auto",
    streams: int | None = None,
    graphs: bool = True,
    threads: int | None = None,
    retune: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> SaliencyStream:
    """Opens an exported model as a stream.

    Args:
        model: the folder that `salema-export` wrote.
        backend: `auto`, `tensorrt`, `tensorrt-rtx`, `onnxruntime`, `onnxruntime-tensorrt`, `ncnn`, `openvino` or
            `openvino-bf16`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        streams: how many independent videos run side by side; None takes the model's batch, or 1 if the batch is free.
        graphs: whether to replay each step as a CUDA graph, if the backend can.
        threads: for backends on the CPU; None for one for each core that this process may use.
        retune: whether `auto` tries the backends on this CPU anew. What a trial finds is kept beside the model.
        say: takes a line before work that takes seconds.

    Raises:
        SalemaError: see `open_session` and `SaliencyStream`.
    """
    # Importing OpenCV takes 0.2 s, and the commands import this file even for --help.
    from pathlib import Path  # noqa: PLC0415

    from salema.runtime.backends.opening import open_session  # noqa: PLC0415
    from salema.runtime.stream import SaliencyStream  # noqa: PLC0415

    session = open_session(model, backend, device, graphs=graphs, threads=threads, retune=retune, say=say)
    try:
        return SaliencyStream(session, session.spec.batch or 1 if streams is None else streams, Path(model))
    except BaseException:
        session.close()
        raise
