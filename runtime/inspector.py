"""What TensorRT's engine inspector shows of the convolutions: the proof of the precision that they really run in.

Source: "Engine Inspector" in the documentation of TensorRT 10.16; "Migrating IEngineInspector Usage from TensorRT 10.x
to 11.x". The JSON has a list `Layers`; a layer's tensors name their type in "Format/Datatype" ("Half", "Float",
"Row major linear FP16 format"), which 11 splits in two, and its weights in {"Type": "Half"}.
"""

from __future__ import annotations

import json
import re
from typing import Any

from salema.runtime.errors import BackendError

_TYPES = (
    ("fp16", re.compile(r"\b(half|fp16|float16)\b", re.IGNORECASE)),
    ("bf16", re.compile(r"\b(bfloat16|bf16)\b", re.IGNORECASE)),
    ("int8", re.compile(r"\bint8\b", re.IGNORECASE)),
    ("fp8", re.compile(r"\b(fp8|float8)\b", re.IGNORECASE)),
    ("fp32", re.compile(r"\b(float|fp32|float32)\b", re.IGNORECASE)),
)
_COPIES = ("reformat", "constant", "noop", "signal", "wait", "shuffle")
_TF32 = re.compile(r"tf32", re.IGNORECASE)


def convolution_precisions(text: str) -> dict[str, str]:
    """Returns the precision of every convolution of an engine, by layer name.

    Args:
        text: the inspector's JSON of the whole engine, built with detailed profiling verbosity.

    Returns:
        `fp32`, `tf32`, `fp16`, `bf16`, `int8`, `fp8`, or `unknown`. Empty where the text shows no convolution.
    """
    try:
        record = json.loads(text)
    except ValueError:
        return {}
    layers = record.get("Layers", []) if isinstance(record, dict) else []
    return {
        str(layer.get("Name")): _precision(layer)
        for layer in layers
        if isinstance(layer, dict) and _is_convolution(layer)
    }


def check_precision(text: str, precision: str, where: str) -> int:
    """Returns how many convolutions the inspector shows, all in the precision asked for.

    Raises:
        BackendError: it shows none, or one of another precision.
    """
    found = convolution_precisions(text)
    if not found:
        raise BackendError(
            f"{where}: TensorRT's inspector shows no convolution, so nothing proves that they run in {precision};"
            " report this with the version of TensorRT"
        )
    wrong = sorted(f"{name} in {kind}" for name, kind in found.items() if kind != precision)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""  # noqa: PLR2004 - three make the point
        raise BackendError(
            f"{where}: {len(wrong)} of {len(found)} convolutions don't run in {precision}: {', '.join(wrong[:3])}"
            f"{more}; export again with --{precision}, and report it if it repeats"
        )
    return len(found)


def _is_convolution(layer: dict[str, Any]) -> bool:
    kind = str(layer.get("LayerType", "")).lower()
    if any(word in kind for word in _COPIES):
        return False
    words = (kind, layer.get("ParameterType", ""), layer.get("TacticName", ""))
    if any("conv" in str(word).lower() for word in words):
        return True
    # Fused kernels of Myelin are called "kgen", "fusion" or "gemm"; they name the ONNX nodes they stand for.
    return kind in {"gemm", "fusion"} and "conv" in str(layer.get("Metadata", "")).lower()


def _precision(layer: dict[str, Any]) -> str:
    weights = layer.get("Weights")
    inputs = layer.get("Inputs") or [{}]
    texts = [str(weights.get("Type", ""))] if isinstance(weights, dict) else []
    texts.append(" ".join(str(value) for key, value in inputs[0].items() if key not in {"Name", "Dimensions"}))
    for text in texts:
        for name, pattern in _TYPES:
            if pattern.search(text):
                return "tf32" if name == "fp32" and _TF32.search(str(layer.get("TacticName", ""))) else name
    return "unknown"
