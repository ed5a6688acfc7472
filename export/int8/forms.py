"""The forms in which an INT8 model is written, each tried and checked in its own runtime."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import onnx

from salema.export.graph.models import SaliencyStep
from salema.export.graph.to_ncnn import Rounding, ncnn_form
from salema.export.graph.to_onnx import describe
from salema.export.int8.quantize import SCHEMES, Ranges, Scheme, quantize
from salema.runtime.backends.ncnn_form import NcnnForm
from salema.runtime.backends.ort_session import OrtSession
from salema.runtime.backends.ort_split_session import OrtSplitSession
from salema.runtime.onnx_metadata import read_spec
from salema.runtime.session import Session

_TRIAL = "trial.onnx"


def check_runtime(target: str) -> None:
    """Refuses, before long work, a runtime that can't be imported, but must check the files.

    Raises:
        MissingDependencyError: ncnn is missing, or OpenVINO is installed and broken.
    """
    if target == "ncnn":
        import salema.runtime.backends.ncnn_session  # noqa: PLC0415 - optional
    elif find_spec("openvino") is not None:
        import salema.runtime.backends.openvino_session  # noqa: F401, PLC0415


class Form(Protocol):
    """One form of an INT8 model, tried and checked in the runtime `runs_in`."""

    scheme: Scheme
    runs_in: str

    def trial(self, ranges: Ranges, weight_bits: int, kept: frozenset[str], *, alone: bool) -> Session:
        """Writes it for one stream into its own folder, and loads it; `alone`: with few layers in INT8."""

    def write(self, ranges: Ranges, weight_bits: int, kept: tuple[str, ...]) -> Session:
        """Writes it in place of the float model, and loads it."""


def form_for(target: str, step: SaliencyStep, one_stream: onnx.ModelProto, paths: list[Path], folder: Path) -> Form:
    """Returns the form for `--for` target; `paths` are those of `to_int8`, `folder` is an empty one for trials.

    For ncnn the network `step` has no rewrites. `one_stream` is its graph for one stream.
    """
    if target == "ncnn":
        return _Ncnn(step, paths[0])
    return _Onnx(target, one_stream, paths, folder)


class _Onnx:
    """ONNX files; those for OpenVINO are checked there if it is installed."""

    def __init__(self, target: str, one_stream: onnx.ModelProto, paths: list[Path], folder: Path) -> None:
        self.scheme = SCHEMES[target]
        self._one_stream, self._paths, self._trial = one_stream, paths, folder / _TRIAL
        in_openvino = target == "openvino" and len(paths) == 1 and find_spec("openvino") is not None
        self.runs_in = "OpenVINO" if in_openvino else "ONNX Runtime"

    def trial(self, ranges: Ranges, weight_bits: int, kept: frozenset[str], *, alone: bool) -> Session:
        scheme = replace(self.scheme, carried=False) if alone else self.scheme
        onnx.save(quantize(self._one_stream, ranges, scheme, weight_bits, kept), self._trial)
        return self._open(self._trial)

    def write(self, ranges: Ranges, weight_bits: int, kept: tuple[str, ...]) -> Session:
        for path in self._paths:
            spec = replace(read_spec(path), precision="int8", float_layers=kept)
            quantized = quantize(onnx.load(path), ranges, self.scheme, weight_bits, frozenset(kept))
            describe(quantized, spec)
            onnx.save(quantized, path)
        return self._open(*self._paths)

    def _open(self, *paths: Path) -> Session:
        if len(paths) > 1:
            return OrtSplitSession(*paths)
        if self.runs_in == "OpenVINO":
            from salema.runtime.backends.openvino_session import OpenVinoSession  # noqa: PLC0415 - optional

            return OpenVinoSession(paths[0], "openvino")
        return OrtSession(paths[0], "cpu")


class _Ncnn:
    """The form for ncnn in the ONNX file, whose own graph stays in float."""

    runs_in = "ncnn"

    def __init__(self, step: SaliencyStep, file: Path) -> None:
        self.scheme = SCHEMES["ncnn"]
        self._step, self._file = step, file

    def trial(self, ranges: Ranges, weight_bits: int, kept: frozenset[str], *, alone: bool) -> Session:
        del weight_bits, alone  # ncnn has one way only
        return self._open(ncnn_form(self._step, read_spec(self._file), Rounding(ranges, kept)))

    def write(self, ranges: Ranges, weight_bits: int, kept: tuple[str, ...]) -> Session:
        del weight_bits
        spec = read_spec(self._file)
        proto = onnx.load(self._file)
        describe(proto, spec, ncnn_form(self._step, spec, Rounding(ranges, kept)))
        onnx.save(proto, self._file)
        return self._open(None)

    def _open(self, form: NcnnForm | None) -> Session:
        from salema.runtime.backends.ncnn_session import NcnnSession  # noqa: PLC0415 - optional

        return NcnnSession(self._file, form)
