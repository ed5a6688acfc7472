"""A model's form for ncnn: an entry in the ONNX file's metadata, which takes its weights from the same file.

Source: ncnn's wiki, "param and model file structure" and "operation param weight table".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salema.runtime.backends.onnx_weights import read_weights
from salema.runtime.errors import ModelError, reason
from salema.runtime.onnx_metadata import read_metadata

FORM_KEY = "salema-ncnn"
CONVOLUTION, BIAS = "Convolution", "Bias"
LEVELS = 127  # of INT8, on either side of zero
_COUNT = "6="  # in a convolution's row: how many weights it has
_RAW_FP32, _RAW_INT8 = (flag.to_bytes(4, "little") for flag in (0, 0x000D4B38))  # before a convolution's weights
_AGAIN = (
    "export it again without --split, --for onnxruntime or --for openvino; of a graph that --emit wrote, name the"
    " model's own folder"
)


@dataclass(frozen=True)
class NcnnForm:
    """How ncnn runs a model.

    Attributes:
        param: the layers, as ncnn's `.param` file has them. A convolution has the name of its weights in the ONNX file.
        constants: values of the layers whose weights the ONNX file lacks, by name.
        scales: for a model in INT8, the factor by which each convolution's input is rounded, by name. Convolutions that
            it lacks stay in float.
    """

    param: str
    constants: dict[str, list[float]]
    scales: dict[str, float] = field(default_factory=dict)

    @property
    def float_layers(self) -> tuple[str, ...]:
        """The convolutions that a model in INT8 leaves in float."""
        names = [row[1] for row in self.rows() if row[0] == CONVOLUTION]
        return tuple(name for name in names if name not in self.scales) if self.scales else ()

    def rows(self) -> Iterator[list[str]]:
        """Yields the words of each layer: kind, name, and the rest."""
        return (line.split() for line in self.param.splitlines()[2:])

    def to_json(self) -> str:
        """Returns the form as an entry for the metadata."""
        return json.dumps(asdict(self))


def read_form(model: Path) -> NcnnForm:
    """Reads the form that `salema-export` wrote into an ONNX file.

    Raises:
        ModelError: there is none, as the graph is rewritten for another runtime, split, or older; or it is damaged.
    """
    text = read_metadata(model, FORM_KEY)
    if text is None:
        raise ModelError(f"{model}: holds no form for ncnn; {_AGAIN}")
    try:
        form = NcnnForm(**json.loads(text))
        counts = form.param.splitlines()[1].split()  # of layers and blobs
        if len(form.param.splitlines()) - 2 != int(counts[0]):
            raise ValueError("layers are missing")  # noqa: TRY301 - handled below with all other faults
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ModelError(f"{model}: its form for ncnn is damaged ({reason(error)}); export it again") from error
    return form


def ncnn_weights(form: NcnnForm, model: Path) -> list[bytes]:
    """Returns the parts of ncnn's `.bin` file, made from the weights in an ONNX file.

    Raises:
        ModelError: the ONNX file lacks weights, or holds others.
    """
    arrays = read_weights(model)
    parts: list[bytes] = []
    try:
        for kind, name, *rest in form.rows():
            if kind == BIAS:
                parts.append(_bytes(np.array(form.constants[name])))
            elif kind == CONVOLUTION:
                count = int(next(word for word in rest if word.startswith(_COUNT)).removeprefix(_COUNT))
                weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
                # With --mean-channel the first layer has a fourth input channel, which ncnn does not need.
                weight = weight.reshape(len(bias), -1)[:, : count // len(bias)]
                if weight.size != count:
                    raise ValueError(f"{name} has {weight.size} weights, and not {count}")  # noqa: TRY301 - told below
                scale = form.scales.get(name)
                parts += [_RAW_FP32, _bytes(weight), _bytes(bias)] if scale is None else _rounded(weight, bias, scale)
    except (KeyError, ValueError, StopIteration) as error:
        raise ModelError(
            f"{model}: its weights don't fit its form for ncnn ({reason(error)}); export it again"
        ) from error
    return parts


def _rounded(weight: NDArray[np.float32], bias: NDArray[np.float32], scale: float) -> list[bytes]:
    """Rounds weights `[out, n]` to INT8 by channel, padded to four bytes; the factors follow, the input's last."""
    greatest = np.abs(weight).max(axis=1, keepdims=True)
    scales = LEVELS / np.where(greatest > 0, greatest, 1)
    levels = np.rint(weight * scales).astype(np.int8).tobytes()
    padding = bytes(-len(levels) % 4)
    return [_RAW_INT8, levels, padding, _bytes(bias), _bytes(scales), _bytes(np.array([scale]))]


def _bytes(array: NDArray[np.floating]) -> bytes:
    return array.astype("<f4").tobytes()
