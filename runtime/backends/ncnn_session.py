"""ncnn on the CPU: Winograd convolutions, which need fewer multiplications, in FP32 or INT8. States are arrays.

Source: ncnn's Python bindings and its wiki, "param and model file structure" and "vulkan notes" (options).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salema.kernels.errors import installed
from salema.runtime.backends.ncnn_form import NcnnForm, ncnn_weights, read_form
from salema.runtime.cpu import threads_for
from salema.runtime.errors import BackendError
from salema.runtime.onnx_metadata import read_spec
from salema.runtime.session import Session, States
from salema.runtime.wording import counted

# ncnn's OpenMP reads these once, when it is loaded. By default waiting threads keep their cores busy for 300 000 turns
# of GCC's libgomp, some ms, which other programs lack. With 1 000, a step of `nano` takes 7.3 ms alone, and 18 beside
# another process of it; with 10 000 turns 6.9 and 82, with 300 9.2 and 13. At full width it takes 103 and 220 ms, with
# 10 000 102 and 256, by default 103 and 339 (benchmarks/results/ncnn_waiting.json: 2 cores of a Zen 5).
_WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}
_is_chosen = not _WAITING.keys().isdisjoint(os.environ)  # by the user
if not _is_chosen:
    os.environ.update(_WAITING)
try:
    with installed("pip install 'salema[ncnn]'", "ncnn"):
        import ncnn
finally:
    if not _is_chosen:  # so that PyTorch's OpenMP does not read them
        for variable in _WAITING:
            del os.environ[variable]


# On by default, and not FP32: they round weights and activations to 16 bits, if the CPU can compute with those.
_ROUNDING = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_bf16_packed")

# In FP32 on x86, Winograd's F(6,3) is faster than F(4,3) in layers larger than 12x16. In smaller ones F(2,3), which
# ncnn takes there because the file gives sizes, is about as fast. With F(4,3) a step is 0.9 times as fast, or 0.84 if
# all layers use it (benchmarks/results/ncnn_choices.json: 1.0.20261020, 2 cores of a Zen 3, AVX2). INT8 has no F(6,3):
# without F(4,3) a step takes 1.3 times as long. Arm is not measured.
_SLOWER_IN_FP32 = ("use_winograd43_convolution",)
_X86 = ("x86_64", "amd64")
_HAS_MEMORY_FILES = hasattr(os, "memfd_create")  # Linux


class NcnnSession(Session):
    """A `Session` over ncnn. States are float32 arrays `[N, C, h, w]` that no step changes.

    The streams of a batch run one after the other, each on all cores.
    """

    def __init__(self, model: Path, form: NcnnForm | None = None, *, threads: int | None = None) -> None:
        """Loads the ONNX file of a whole step; `form` is the form in it, unless another is given.

        `threads` is as in `open_session`.

        Raises:
            ModelError: the file has no such form, or is damaged.
            BackendError: this version of ncnn can't load it.
        """
        self.spec = read_spec(model)
        form = form or read_form(model)
        if form.scales:
            self.spec = replace(self.spec, precision="int8", float_layers=form.float_layers)
        self._net: Any = load_net(form.param, ncnn_weights(form, model), self.spec.precision, threads)
        self.backend, self.device = "ncnn", "cpu"
        self.runs_on = f"ncnn {ncnn.__version__} on cpu, {counted(self._net.opt.num_threads, 'thread')}"

    def step(
        self, frames: NDArray[np.uint8], states: States, mix: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], States]:
        """See `Session.step`."""
        self.check_open()
        streams = [self._step_one(frame, [s[i] for s in states], mix[i]) for i, frame in enumerate(frames)]
        maps, *after = (np.stack(arrays) for arrays in zip(*streams, strict=True))
        return maps[:, 0], tuple(after)

    def _step_one(
        self, frame: NDArray[np.uint8], states: list[NDArray[np.float32]], mix: np.float32
    ) -> list[NDArray[np.float32]]:
        """Runs one stream's step; returns copies of the map `[1, H, W]` and the states `[C, h, w]`."""
        height, width = frame.shape[:2]
        bgr = ncnn.Mat.PixelType.PIXEL_BGR
        inputs = {"frame": ncnn.Mat.from_pixels(np.ascontiguousarray(frame), bgr, width, height)}
        if self.spec.coefficient is not None:
            inputs["mix"] = to_mat(np.array([mix], np.float32))
        for state, value in zip(self.spec.states, states, strict=True):
            # The file has no select. If the new frame has all the weight, zeros do the same, and clear a NaN.
            fresh = self.spec.coefficient is not None and mix == 1
            inputs[f"{state.name}_in"] = to_mat(np.zeros_like(value) if fresh else value)
        extractor = self._net.create_extractor()
        for name, mat in inputs.items():
            _must(extractor.input(name, mat), f"taking {name}")
        outputs = []
        for name in self.spec.output_names:
            code, mat = extractor.extract(name)
            _must(code, f"computing {name}")
            outputs.append(np.array(mat))  # a copy, because mat.numpy() is a view that the mat's end invalidates
        return outputs

    @property
    def computes_in(self) -> str:
        """See `Session.computes_in`."""
        return "int8" if self.spec.precision == "int8" else "fp32"

    def close(self) -> None:
        """See `Session.close`."""
        super().close()
        self._net = None


def load_net(param: str, weights: Iterable[bytes], precision: str = "fp32", threads: int | None = None) -> Any:
    """Loads a network: its layers as ncnn's `.param` file has them, and the parts of its `.bin` file.

    `precision` is `int8` if layers are INT8, else `fp32`. `threads` is None for one for each core that this process may
    use.

    Raises:
        BackendError: this version of ncnn can't load it.
    """
    net = ncnn.Net()
    slower = precision == "fp32" and platform.machine().lower() in _X86
    for option in (*_ROUNDING, *(_SLOWER_IN_FP32 if slower else ())):
        setattr(net.opt, option, False)
    net.opt.num_threads = threads_for(threads)
    return load_into(net, param, weights)


def load_into(net: Any, param: str, weights: Iterable[bytes]) -> Any:
    """Loads a network into an empty `ncnn.Net` with its own options, as `load_net` does; returns it."""
    with _in_memory([param.encode("ascii")]) as layers, _in_memory(weights) as values:
        if net.load_param(layers) or net.load_model(values):
            raise BackendError(f"ncnn {ncnn.__version__} can't load the model; upgrade it with: pip install -U ncnn")
    return net


@contextmanager
def _in_memory(parts: Iterable[bytes]) -> Iterator[str]:
    """Writes parts into a file that is in memory only, or temporary where there are no such files, and yields its path.

    ncnn's `load_model_mem` won't do: the network goes on to read the memory, which Python frees.
    """
    with os.fdopen(os.memfd_create("salema-ncnn"), "wb") if _HAS_MEMORY_FILES else NamedTemporaryFile() as file:
        file.writelines(parts)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}" if _HAS_MEMORY_FILES else file.name


def to_mat(array: NDArray[np.float32]) -> Any:
    """Copies a float32 array `[C, h, w]` or `[n]` into ncnn's own memory, which layers may overwrite."""
    contiguous = np.ascontiguousarray(array, np.float32)  # a variable keeps it alive, ncnn.Mat doesn't
    return ncnn.Mat(contiguous).clone()


def _must(code: int, doing: str) -> None:
    if code:
        raise BackendError(f"ncnn {ncnn.__version__} failed at {doing} (code {code}); free memory, or export again")
