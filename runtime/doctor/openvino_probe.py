"""`salema-doctor`'s probe of OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence

from salema.runtime.doctor.findings import BROKEN, MISSING, WORKS, Finding, unusable
from salema.runtime.errors import MissingDependencyError, reason

OPENVINO, OPENVINO_BF16 = "OpenVINO", "OpenVINO bfloat16"


def probe_openvino(tiny_model: bytes, given: Sequence[float], expected: float) -> list[Finding]:
    """Runs a tiny model, and asks OpenVINO in which types it computes on this CPU.

    `tiny_model` is an ONNX file that maps `given`, float32 `[1, 1, 3, 3]`, to the number `expected`.
    """
    try:
        from salema.runtime.backends import openvino_session  # noqa: PLC0415 - whether it can be imported is the question
    except MissingDependencyError as error:
        return [unusable(OPENVINO, error)]
    import numpy as np  # noqa: PLC0415 - if it is broken, the other probes still report

    core = openvino_session.ov.Core()
    able = openvino_session.capabilities(core)
    reinstall = "pip install --force-reinstall openvino"
    try:
        compiled = core.compile_model(core.read_model(tiny_model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        output = compiled([np.array(given, np.float32).reshape(1, 1, 3, 3)])[0].item()
    except RuntimeError as error:
        return [Finding(OPENVINO, BROKEN, reason(error), reinstall)]
    if output != expected:
        return [Finding(OPENVINO, BROKEN, f"a tiny model gave {output:g} instead of {expected:g}", reinstall)]
    detail = f"{openvino_session.VERSION}, a tiny model ran; this CPU computes in {', '.join(able)}"
    if "BF16" in able:
        return [Finding(OPENVINO, WORKS, detail), Finding(OPENVINO_BF16, WORKS, "this CPU has it")]
    lacking = Finding(OPENVINO_BF16, MISSING, "this CPU has none", "use --backend openvino")
    return [Finding(OPENVINO, WORKS, detail), lacking]
