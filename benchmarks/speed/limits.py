"""How long a case's multiplications take at the machine's arithmetic peak, and its share of that.

Two counts are set against the peak: the multiplications that are done, which no program exceeds, and those that the
graph names, of which Winograd's method does a part. Where no peak is known, on a GPU or without llvmlite, the graph's
are set against the rate of a matrix product, which is no limit.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salema.benchmarks.machine.peaks import Peaks, measure_peaks
from salema.benchmarks.machine.rates import Rates, measure_rates
from salema.benchmarks.peers.peers import naive_model
from salema.benchmarks.speed.cases import Case, stream_of
from salema.benchmarks.speed.work import DIRECT, Work, count_work
from salema.runtime.backends.ncnn_form import read_form
from salema.runtime.errors import BackendError, MissingDependencyError
from salema.runtime.model_folder import look_up

if TYPE_CHECKING:
    from salema.benchmarks.peers.network import Network
    from salema.runtime.spec import ModelSpec

# Here PyTorch, ONNX Runtime and OpenVINO convolve directly. On Arm they may call libraries that use Winograd's method.
_X86 = ("x86_64", "amd64")
_NAIVE_WORK: dict[tuple[ModelSpec, str | None], Work] = {}  # by what it is of: an export for each takes seconds


@dataclass(frozen=True)
class Machine:
    """What was measured of a device; `peaks` is None on a GPU, and without llvmlite."""

    device: str
    rates: Rates
    peaks: Peaks | None


def measure_machine(device: str, precisions: set[str], most_s: float, say: Callable[[str], None]) -> Machine:
    """Measures rates, and on a CPU its peaks.

    The device is `cpu`, `cuda` or `cuda:N`. Each repeat of a product, and each instruction, may take `most_s` seconds.
    """
    say("measuring what this machine can do at most")
    peaks = None
    if device == "cpu":
        try:
            # INT8 models have float layers, and ncnn multiplies in 16 bits there.
            needed = {*precisions, "fp32", *(("int16",) if "int8" in precisions else ())}
            peaks = measure_peaks(needed, most_s=most_s)
        except (MissingDependencyError, BackendError) as error:
            say(f"note: no peak, so shares are of a matrix product's rate, which is no limit: {error}")
    return Machine(device, measure_rates(device, precisions, most_s), peaks)


def limit_of(
    case: Case, network: Network | None, scratch: Path, machine: Machine, median_ms: float
) -> dict[str, Any] | None:
    """Returns a record of the case's limits; peers run the naive graph. None without the onnx package.

    `scratch` is a folder for naive exports; `median_ms` is what the case took.
    """
    try:
        work = _work_of(case, network, scratch, machine.device)
    except MissingDependencyError:
        return None
    in_float = case.precision if case.precision != "int8" else "bf16" if case.backend.endswith("bf16") else "fp32"
    peaks = machine.peaks.operations_per_s if machine.peaks else {}
    graph_ms = peak_ms(peaks, [(layer.operations, "int8" if layer.is_int8 else in_float) for layer in work.layers])
    done = [(layer.done_operations, layer.done_in or ("int8" if layer.is_int8 else in_float)) for layer in work.layers]
    done_ms = peak_ms(peaks, done) if work.is_known else None
    rate, copied = machine.rates.product_operations_per_s.get(case.precision), machine.rates.bytes_per_s
    product_ms = work.ideal_ms(case.precision, rate, copied) if rate and copied else None
    return {
        "graph_operations_per_frame": work.operations / case.batch,
        "done_operations_per_frame": work.done_operations and work.done_operations / case.batch,
        "methods": dict(Counter(layer.method for layer in work.layers)) if work.is_known else None,
        "bytes_per_frame": work.bytes_in(case.precision) / case.batch,
        "peak_ms_of_done": done_ms,
        "done_share_of_peak": done_ms and done_ms / median_ms,
        "peak_ms_of_graph": graph_ms,
        "graph_share_of_peak": graph_ms and graph_ms / median_ms,
        "product_ms_of_graph": product_ms,
        "graph_share_of_product": product_ms and product_ms / median_ms,
    }


def _work_of(case: Case, network: Network | None, scratch: Path, device: str) -> Work:
    method = DIRECT if device == "cpu" and platform.machine().lower() in _X86 else None
    if case.folder is None:
        assert network is not None  # there are peers
        key = network.spec_for(case.batch), method
        if key not in _NAIVE_WORK:
            _NAIVE_WORK[key] = count_work((naive_model(network, case.batch, scratch),), case.batch, method)
        return _NAIVE_WORK[key]
    model = look_up(case.folder)
    if stream_of(case).session.backend == "ncnn":
        from salema.benchmarks.speed.ncnn_work import count_ncnn_work  # noqa: PLC0415 - optional

        return count_ncnn_work(read_form(*model.onnx_files()).param, case.batch)
    return count_work(model.onnx_files(), case.batch, method)


def peak_ms(peaks: Mapping[str, float], parts: list[tuple[int, str]]) -> float | None:
    """Returns the time of all parts, each `(operations, precision)`, at the peak; None where one has no peak."""
    if not all(precision in peaks for _, precision in parts):
        return None
    return 1e3 * sum(operations / peaks[precision] for operations, precision in parts)
