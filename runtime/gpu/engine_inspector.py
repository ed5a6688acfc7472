"""Reads TensorRT's engine inspector, which shows the precision that the convolutions really run in.

Sources: "Engine Inspector" in the documentation of TensorRT 10.16; "Migrating IEngineInspector Usage from TensorRT 10.x
to 11.x"; the operation names in TensorRT-RTX 1.7.1. The JSON has a list `Layers`. A layer's tensors give their type in
"Format/Datatype" ("Half", "Float", "Row major linear FP16 format"); TensorRT 11 splits that entry in two, and 10 leaves
it out if shapes are dynamic and not set. Weights give their type in {"Type": "Half"}. "TacticName" is the kernel.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from salema.runtime.errors import BackendError
from salema.runtime.wording import listed

_TYPES = {
    "fp16": re.compile(r"\b(half|fp16|float16)\b", re.IGNORECASE),
    "bf16": re.compile(r"\b(bfloat16|bf16)\b", re.IGNORECASE),
    "int8": re.compile(r"\bint8\b", re.IGNORECASE),
    "fp8": re.compile(r"\b(fp8|float8)\b", re.IGNORECASE),
    "fp32": re.compile(r"\b(float|fp32|float32)\b", re.IGNORECASE),
}
# The types that kernels multiply, as their names show.
_TACTICS = {
    "tf32": re.compile(r"tf32"),
    "int8": re.compile(r"_i8i8_|_imma_"),
    "bf16": re.compile(r"bf16bf16"),
    "fp8": re.compile(r"e4m3|e5m2"),
    "fp16": re.compile(r"_f16f16_|h16816|h1688|h884|hmma"),
    "fp32": re.compile(r"_f32f32_f32f32_|_scudnn_|sgemm"),
}
_CONVOLUTION = re.compile("conv|correlation", re.IGNORECASE)  # Myelin, and so TensorRT-RTX, says "correlation"
_FUSED = ("gemm", "fusion", "composite")
_COPIES = ("reformat", "constant", "noop", "signal", "wait", "shuffle", "copy")


class Seen(NamedTuple):
    """What a layer shows: precisions, and whether its weights or its kernel prove them, or its inputs hint at them."""

    precisions: set[str]
    proven: bool


def convolution_precisions(text: str) -> dict[str, Seen]:
    """Returns the precisions that every convolution of an engine shows, by layer name.

    Args:
        text: the inspector's JSON of the whole engine, built with detailed profiling verbosity.

    Returns:
        For each layer some of `fp32`, `tf32`, `fp16`, `bf16`, `int8`, `fp8`: one, if its weights or kernel prove it;
        several, if only its inputs show them and differ (a fusion); none, if nothing shows it.
    """
    try:
        record = json.loads(text, strict=False)  # some strings hold control characters
    except ValueError:
        return {}
    layers = record.get("Layers", []) if isinstance(record, dict) else []
    return {
        str(layer.get("Name")): _evidence(layer)
        for layer in layers
        if isinstance(layer, dict) and _is_convolution(layer)
    }


def check_precision(text: str, precision: str, where: str, *, in_float: int = 0) -> int:
    """Returns how many convolutions the inspector shows in the wanted precision; none where it shows nothing of them.

    Inputs alone refuse no engine: Myelin, and so TensorRT-RTX, fuses convolutions with operations in other types.

    `where` names the engine in messages; `in_float` is how many convolutions of an INT8 model may run in FP32.

    Raises:
        BackendError: the weights or the kernels of convolutions are in another precision.
    """
    layers = convolution_precisions(text)
    wrong = {name: seen.precisions for name, seen in layers.items() if seen.proven and precision not in seen.precisions}
    spared = sum(precisions == {"fp32"} for precisions in wrong.values())
    if len(wrong) > min(spared, in_float):
        named = sorted(f"{name} in {'/'.join(sorted(precisions))}" for name, precisions in wrong.items())
        raise BackendError(
            f"{where}: {len(wrong)} of {len(layers)} convolutions don't run in {precision}: {listed(named, 3)}"
            f"; export again with --{precision}, and report it if it repeats"
        )
    return sum(precision in seen.precisions for seen in layers.values())


def _is_convolution(layer: dict[str, Any]) -> bool:
    kind = str(layer.get("LayerType", "")).lower()
    if any(word in kind for word in _COPIES):
        return False
    if any(_CONVOLUTION.search(str(layer.get(key, ""))) for key in ("LayerType", "ParameterType", "TacticName")):
        return True
    # Myelin's fused kernels name the ONNX nodes that they replace.
    return any(word in kind for word in _FUSED) and bool(_CONVOLUTION.search(str(layer.get("Metadata", ""))))


def _evidence(layer: dict[str, Any]) -> Seen:
    """Trusts the weights most, then the kernel's name, then the inputs: one may belong to another fused operation."""
    tactic = _first(_TACTICS, str(layer.get("TacticName", "")))
    weights = layer.get("Weights")
    stored = _first(_TYPES, str(weights.get("Type", ""))) if isinstance(weights, dict) else None
    if stored:
        return Seen({"tf32"} if (stored, tactic) == ("fp32", "tf32") else {stored}, proven=True)
    if tactic:
        return Seen({tactic}, proven=True)
    texts = [
        " ".join(str(value) for key, value in tensor.items() if key not in {"Name", "Dimensions"})
        for tensor in layer.get("Inputs") or []
        if isinstance(tensor, dict)
    ]
    return Seen({name for text in texts for name, pattern in _TYPES.items() if pattern.search(text)}, proven=False)


def _first(patterns: dict[str, re.Pattern[str]], text: str) -> str | None:
    return next((name for name, pattern in patterns.items() if pattern.search(text)), None)
