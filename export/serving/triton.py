"""The configuration of a Triton model: a sequence of requests for each stream, whose states Triton keeps.

Sources: Triton 2.73's `model_config.proto`; "Batchers" and "Implicit State Management" of its user guide; and, where
they are silent, triton-inference-server/core 05295b7 (`sequence_batch_scheduler.cc`, `sequence_state.cc`).
"""

from __future__ import annotations

from typing import Any

from salema.export.serving.pbtxt import Name, pbtxt
from salema.runtime.spec import ModelSpec

_IDLE_US = 10_000_000  # Triton's own is 1 s: a camera that stalls for longer would lose its memory
_DELAY_US = 2_000
_MOST_STREAMS = 64  # that have a state at the same time; others wait
_TYPES = {"uint8": Name("TYPE_UINT8"), "float32": Name("TYPE_FP32")}


def triton_config(spec: ModelSpec, name: str, platform: str, profile: tuple[int, int, int]) -> str:
    """Writes `config.pbtxt` for a graph that `graphs.sequenced` made.

    `platform` is `onnxruntime_onnx` or `tensorrt_plan`; `profile` is the least, best and greatest number of streams in
    a batch.
    """
    batching = {"sequence_batching": _sequences(spec, profile)} if spec.states else _stateless(spec, profile)
    record = {
        "name": name,
        "platform": platform,
        "max_batch_size": profile[2],
        "input": [tensor(spec, "frame")],
        "output": [tensor(spec, "saliency")],
        **batching,
        "instance_group": {"count": 1, "kind": Name("KIND_GPU" if platform == "tensorrt_plan" else "KIND_AUTO")},
        "parameters": {"key": "salema", "value": {"string_value": spec.to_json()}},
    }
    return pbtxt(record)


def tensor(spec: ModelSpec, name: str) -> dict[str, Any]:
    """Describes an input or output, without its batch."""
    return {"name": name, "data_type": _TYPES[spec.tensor_dtype(name)], "dims": spec.tensor_shapes[name][1:]}


def _sequences(spec: ModelSpec, profile: tuple[int, int, int]) -> dict[str, Any]:
    """The oldest strategy: a batch holds those streams only that have a frame.

    The direct one keeps a place of the batch for each stream, and computes the places of streams that have none.
    """
    start = {
        "name": "mix",
        "control": {"kind": Name("CONTROL_SEQUENCE_START"), "fp32_false_true": (spec.coefficient, 1.0)},
    }
    return {
        "max_sequence_idle_microseconds": _IDLE_US,
        "oldest": {
            "max_candidate_sequences": max(_MOST_STREAMS, profile[2]),
            "preferred_batch_size": (profile[1],) if profile[1] > 1 else [],
            "max_queue_delay_microseconds": _DELAY_US,
        },
        "control_input": [start] if spec.coefficient is not None else [],
        "state": [_state(spec, state.name) for state in spec.states],
    }


def _state(spec: ModelSpec, name: str) -> dict[str, Any]:
    shape = {key: value for key, value in tensor(spec, f"{name}_in").items() if key != "name"}
    return {
        "input_name": f"{name}_in",
        "output_name": f"{name}_out",
        **shape,
        # Without it the first state is whatever the memory held.
        "initial_state": {"name": f"{name}_zero", **shape, "zero_data": True},
    }


def _stateless(spec: ModelSpec, profile: tuple[int, int, int]) -> dict[str, Any]:
    """A network without states: each frame is by itself.

    Only here is there a warm-up. Triton runs its warm-up beside the sequence batcher, with no states, and a backend
    that then hands back a state fails (`TRITONBACKEND_StateNew`): the model would not load.
    """
    shape = {key: value for key, value in tensor(spec, "frame").items() if key != "name"}
    sizes = sorted({profile[0], profile[2]})
    return {
        "dynamic_batching": {"max_queue_delay_microseconds": _DELAY_US},
        "model_warmup": [
            {
                "name": f"batch_{size}",
                "batch_size": size,
                "inputs": {"key": "frame", "value": {**shape, "zero_data": True}},
            }
            for size in sizes
        ],
    }
