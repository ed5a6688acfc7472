"""From a float model to an INT8 one: calibrate, choose what stays in float, write, and report the cost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from salema.export.graph.models import SaliencyStep
from salema.export.graph.to_onnx import to_onnx
from salema.export.int8.forms import Form, form_for
from salema.export.int8.gate import LEAST_CC, STEPS, Accuracy, Maps, check, measure, run
from salema.export.int8.quantize import Ranges, calibrate, layers_of
from salema.runtime.backends.ort_session import OrtSession
from salema.runtime.closing import Closing
from salema.runtime.errors import UsageError
from salema.runtime.metrics import cc
from salema.runtime.onnx_metadata import read_spec
from salema.runtime.session import Session
from salema.runtime.spec import ModelSpec

if TYPE_CHECKING:
    from salema.export.int8.footage import Footage
    from salema.export.options import ExportOptions

AIM_CC = 0.9905
"""From this CC on, no more layers are left in float. A higher aim would cost time: if all layers lose alike by rounding
(seeded weights at full size), a layer in float gains 0.0002, and takes several times as long as in INT8."""
_LEAST_GAIN = 5e-4  # of CC, for 7 bits to be taken
MOST_FLOAT = 4
_TRIAL_FRAMES = 4  # of the first run and of the last

Table = tuple[tuple[str, float], ...]
"""Layers with the least CC when only they are INT8, worst first."""


@dataclass(frozen=True)
class Int8Report:
    """What was quantised, with which frames, and what it costs.

    `activations` is `uint8` or `int8`. `sensitivity` is empty if it was neither needed nor asked for. `accuracy` is
    against FP32 on the held-out frames.
    """

    calibration_frames: int
    calibration_runs: int
    sources: tuple[str, ...]
    activations: str
    weight_bits: int
    float_layers: tuple[str, ...]
    sensitivity: Table
    accuracy: Accuracy


class Trials(Closing):
    """The float step for one stream, and INT8 forms of it, tried on a few calibration frames, never held-out ones."""

    def __init__(self, proto: onnx.ModelProto, folder: Path, footage: Footage, form: Form) -> None:
        self.layers, self.form = tuple(layers_of(proto)), form
        reference = folder / "float.onnx"
        onnx.save(proto, reference)
        self.exact = OrtSession(reference, "cpu")
        self.ranges: Ranges = calibrate(reference, self.exact, footage.runs)
        first, *others = footage.runs
        self._clips = [clip[:_TRIAL_FRAMES] for clip in (first, *others[-1:])]
        self._expected = self._run(self.exact)

    def close(self) -> None:
        """Frees the float step."""
        self.exact.close()

    def _run(self, session: Session) -> Maps:
        return np.concatenate([run(session, clip) for clip in self._clips])

    def least_cc(self, weight_bits: int, kept: Iterable[str], *, alone: bool = False) -> float:
        """Returns the least correlation with the float maps when all layers but `kept` are INT8."""
        with self.form.trial(self.ranges, weight_bits, frozenset(kept), alone=alone) as session:
            maps = self._run(session)
        return min(cc(b, a) if np.isfinite(b).all() else -1.0 for a, b in zip(self._expected, maps, strict=True))

    def table(self, weight_bits: int) -> Table:
        """Returns the least CC of each layer when only it is INT8, worst first."""
        least_ccs = {
            layer: self.least_cc(weight_bits, (other for other in self.layers if other != layer), alone=True)
            for layer in self.layers
        }
        return tuple(sorted(least_ccs.items(), key=lambda row: row[1]))


def to_int8(
    step: SaliencyStep, paths: list[Path], footage: Footage, options: ExportOptions, say: Callable[[str], None]
) -> tuple[ModelSpec, Int8Report]:
    """Replaces float files by INT8 ones, and compares them with the float model; returns their spec, and the report.

    `paths` are the float file, or those of both parts. For ncnn its files follow: they are written, and the ONNX file
    stays in float.

    Raises:
        UsageError: there is no such layer.
        VerificationError: see `check`.
    """
    spec = read_spec(paths[0])
    whole = replace(spec.whole, batch=1)
    one_stream = onnx.load(paths[0]) if spec == whole else to_onnx(step, whole)
    unknown = [layer for layer in options.float_layers if layer not in layers_of(one_stream)]
    if unknown:
        raise UsageError(f"--float-layer {unknown[0]}: the layers of this model are {', '.join(layers_of(one_stream))}")
    with tempfile.TemporaryDirectory(prefix="salema-") as folder:
        say(f"calibrating   on {footage.count} frames in {len(footage.runs)} runs, the state running")
        form = form_for(options.for_, step, one_stream, paths, Path(folder))
        with Trials(one_stream, Path(folder), footage, form) as trials:
            choice = _choose(trials, options, say)
            written, accuracy = _write(trials, choice, footage, options, say)
    return written, Int8Report(
        calibration_frames=footage.count,
        calibration_runs=len(footage.runs),
        sources=footage.sources,
        activations="uint8" if form.scheme.unsigned else "int8",
        weight_bits=choice.weight_bits,
        float_layers=choice.kept,
        sensitivity=choice.table,
        accuracy=accuracy,
    )


@dataclass(frozen=True)
class _Choice:
    weight_bits: int
    kept: tuple[str, ...]
    table: Table


def _write(
    trials: Trials, choice: _Choice, footage: Footage, options: ExportOptions, say: Callable[[str], None]
) -> tuple[ModelSpec, Accuracy]:
    """Writes the chosen form, and checks it; if it fails, the error names the layers to blame."""
    say(
        f"checking      INT8 in {trials.form.runs_in} against FP32 on {len(footage.held_out)} held-out frames,"
        f" {STEPS} steps"
    )
    with trials.form.write(trials.ranges, choice.weight_bits, choice.kept) as session:
        accuracy, spec = measure(trials.exact, session, footage.held_out, STEPS), session.spec
    table = choice.table
    if not accuracy.cc >= LEAST_CC:  # a NaN too
        table = table or trials.table(choice.weight_bits)
        for layer, value in table if options.sensitivity else ():  # else printed with the rest
            say(f"              {layer}: least CC {value:.6f} where it alone is INT8")
    blame = [row for row in table if row[0] not in choice.kept]
    check(accuracy, blame, "--fp32" if options.for_ == "ncnn" else "--fp16")
    return spec, accuracy


def _choose(trials: Trials, options: ExportOptions, say: Callable[[str], None]) -> _Choice:
    """Chooses the better width of the weights, then leaves the worst layers in float until `AIM_CC` is reached."""
    scheme = trials.form.scheme
    ends = (trials.layers[0], trials.layers[-1]) if scheme.ends_in_float else ()
    kept = tuple(dict.fromkeys((*ends, *options.float_layers)))
    scores = {bits: trials.least_cc(bits, kept) for bits in scheme.weight_bits}
    bits = scheme.weight_bits[0]
    for width, score in scores.items():  # a few frames can't tell a smaller gain from chance
        bits = width if score > scores[bits] + _LEAST_GAIN else bits
    best = scores[bits]
    table: Table = ()
    say(
        "              "
        + ", ".join(f"least CC {score:.5f} with {width}-bit weights" for width, score in scores.items())
    )
    if options.sensitivity or not best >= AIM_CC:
        say(f"sensitivity   each of {len(trials.layers)} layers alone in INT8")
        table = trials.table(bits)
    for layer in [layer for layer, _ in table if layer not in kept][:MOST_FLOAT]:
        if best >= AIM_CC:
            break
        kept = (*kept, layer)
        best = trials.least_cc(bits, kept)
        say(f"              {layer} in float: least CC {best:.5f}")
    return _Choice(bits, kept, table)
