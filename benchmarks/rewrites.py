"""What each rewrite is worth on the CPU: `python -m salema.benchmarks.rewrites FILE.json`.

Full-size seeded weights, 192x256, one stream, whole steps as a caller sees them; PyTorch eager, the published way, in
the same rounds.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from salema.benchmarks.environment import describe_environment
from salema.benchmarks.harness import compare
from salema.export.architecture import Architecture
from salema.export.exporter import Options, export_model
from salema.export.models import SaliencyStep
from salema.export.rewrite import FOR
from salema.export.seeded import moving_disc, seeded_state_dict
from salema.runtime import load

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 25
_TARGETS = ("any", "onnxruntime", "openvino")
_CASES = (*(("onnxruntime", target) for target in _TARGETS), ("openvino", "any"), ("openvino", "openvino"))


def eager_step() -> Callable[[], object]:
    """Returns a step of the network in PyTorch, as it is."""
    weights = {key: torch.from_numpy(array) for key, array in seeded_state_dict("salema").items()}
    step = SaliencyStep(Architecture("salema", (30,)), weights).eval()
    frame = torch.from_numpy(moving_disc(1, 192, 256))
    state, mix = torch.zeros(1, 512, 12, 16), torch.full((1,), 0.1)

    def run() -> object:
        with torch.inference_mode():
            return step(frame, state, mix)

    return run


def main() -> None:
    """Measures, prints and writes JSON."""
    frames = moving_disc(4, 192, 256)
    with tempfile.TemporaryDirectory() as folder:
        for target in _TARGETS:
            export_model(Options("seeded", Path(folder) / target, for_=target), lambda _: None)
        streams = {
            f"{backend}, {'+'.join(FOR[target]) or 'plain'}": load(Path(folder) / target, backend=backend, device="cpu")
            for backend, target in _CASES
        }
        maps = {name: np.stack([stream.step(frame) for frame in frames]) for name, stream in streams.items()}
        cases: dict[str, Callable[[], object]] = {"pytorch eager": eager_step()}
        cases |= {name: partial(stream.step, frames[0]) for name, stream in streams.items()}
        timings = compare(cases, "pytorch eager", ROUNDS)
        for stream in streams.values():
            stream.close()
    plain = maps["onnxruntime, plain"]
    differences = {name: float(np.abs(found - plain).max()) for name, found in maps.items()}
    record = {
        "environment": describe_environment(),
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "map_difference_to_plain": differences,
    }
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    for name, timing in timings.items():
        spread = f"{timing.ratio_low:.2f} to {timing.ratio_high:.2f}"
        print(f"{name:40s} {timing.median_ms:8.1f} ms  {timing.ratio:5.2f} x ({spread})")


if __name__ == "__main__":
    main()
