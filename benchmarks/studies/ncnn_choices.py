"""What each of our choices for ncnn gains.

`python -m salema.benchmarks.studies.ncnn_choices FP32_DIR INT8_DIR FILE.json`.
It times steps of the exported files, as they are and with one choice undone, in turns: how Winograd's forms are chosen,
and how the first layer is computed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.speed.harness import compare
from salema.benchmarks.studies.common import write_study
from salema.export.weights.seeded import moving_disc
from salema.runtime.backends.ncnn_form import ncnn_weights, read_form
from salema.runtime.backends.ncnn_session import load_net, to_mat
from salema.runtime.model_folder import MODEL_FILE
from salema.runtime.onnx_metadata import read_spec

ROUNDS = 15
_SIZES, _FIRST = r" -23330=\S+", " 31=96"


def choices(fp32: Path, int8: Path) -> dict[str, Callable[[], NDArray[np.float32]]]:
    """Returns functions that run a step, `() -> map`, by the choice that is undone.

    `fp32` is the folder of a model exported `--for ncnn`, `int8` of one with `--int8` too.
    """
    text, rounded = (read_form(folder / MODEL_FILE).param for folder in (fp32, int8))
    # load_net leaves F(4,3) out for fp32 on x86-64, whatever is in the form.
    variants = {
        "fp32": (fp32, text, "fp32"),
        "fp32, F(4,3) in place of F(6,3)": (fp32, text, "int8"),
        "fp32, F(4,3) everywhere": (fp32, re.sub(_SIZES, "", text), "int8"),
        "fp32, first layer by Winograd": (fp32, text.replace(_FIRST, ""), "fp32"),
        "fp32, first layer by a matrix product": (fp32, text.replace(_FIRST, " 31=64"), "fp32"),
        "int8": (int8, rounded, "int8"),
        "int8, without F(4,3)": (int8, rounded, "fp32"),
    }
    return {name: _stepper(*variant) for name, variant in variants.items()}


def _stepper(folder: Path, text: str, precision: str) -> Callable[[], NDArray[np.float32]]:
    model = folder / MODEL_FILE
    spec, form = read_spec(model), read_form(model)
    net = load_net(text, ncnn_weights(form, model), precision)
    frame = moving_disc(1, spec.height, spec.width)[0].transpose(2, 0, 1).astype(np.float32)
    inputs = {"frame": frame, "mix": np.full(1, 0.1, np.float32)}
    inputs |= {f"{state.name}_in": np.zeros(state.shape_chw, np.float32) for state in spec.states}

    def step() -> NDArray[np.float32]:
        extractor = net.create_extractor()
        for name, value in inputs.items():
            extractor.input(name, to_mat(value))
        saliency: NDArray[np.float32] = np.array(extractor.extract("saliency")[1])[0]
        return saliency

    return step


def main() -> None:
    """Measures, prints and writes JSON."""
    fp32, int8 = map(Path, sys.argv[1:3])
    compared = compare(choices(fp32, int8), "fp32", ROUNDS)
    for name, timing in compared.items():
        quartiles = f"{timing.ratio_low:.2f} to {timing.ratio_high:.2f}"
        print(f"{name}: {timing.median_ms:.1f} ms, {timing.ratio:.2f} x ({quartiles})")
    write_study({"rounds": ROUNDS, "timings": {name: asdict(timing) for name, timing in compared.items()}})


if __name__ == "__main__":
    main()
