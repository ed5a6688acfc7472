"""A case's shares of the peak: of what is done, and of what the graph names."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from salema.benchmarks.machine.peaks import Peaks
from salema.benchmarks.machine.rates import Rates
from salema.benchmarks.speed import limits
from salema.benchmarks.speed.cases import Case
from salema.benchmarks.speed.limits import Machine, limit_of, measure_machine
from salema.benchmarks.speed.work import LayerWork, Work

PEAKS = Peaks({"fp32": 1e3, "bf16": 2e3, "int16": 2e3, "int8": 4e3}, {}, {}, 2, "test")
MACHINE = Machine("cpu", Rates({"fp32": 500.0}, 1e6), PEAKS)
FLOAT = LayerWork("float", 1000, 900, 10)
INT8 = LayerWork("int8", 4000, 3600, 10, is_int8=True)
WINOGRAD = LayerWork("winograd", 4000, 1000, 10, is_int8=True, method="F(4,3)", done_in="int16")


@pytest.fixture
def limit(monkeypatch):
    def of(*layers, backend="onnxruntime", precision="int8", machine=MACHINE, batch=2):
        monkeypatch.setattr(limits, "_work_of", lambda *_: Work(layers))
        case = Case("c", backend, precision, batch, None, None, "", 0)
        return limit_of(case, None, Path(), machine, 10_000)

    return of


def test_each_layer_counts_at_the_peak_of_its_precision(limit):
    found = limit(FLOAT, INT8, WINOGRAD)
    assert found["peak_ms_of_graph"] == pytest.approx(1e3 * (1000 / 1e3 + 4000 / 4e3 + 4000 / 4e3))
    assert found["peak_ms_of_done"] == pytest.approx(1e3 * (900 / 1e3 + 3600 / 4e3 + 1000 / 2e3))
    assert found["graph_share_of_peak"] == pytest.approx(0.3)
    assert found["done_share_of_peak"] == pytest.approx(0.23)
    assert found["graph_operations_per_frame"] == 9000 / 2
    assert found["done_operations_per_frame"] == 5500 / 2
    assert found["methods"] == {"direct": 2, "F(4,3)": 1}
    assert found["graph_share_of_product"] is None  # no product was measured in INT8


def test_float_layers_of_an_int8_model_are_in_bfloat16_where_the_backend_is(limit):
    assert limit(FLOAT, backend="openvino-bf16")["peak_ms_of_graph"] == pytest.approx(500)
    assert limit(FLOAT, backend="openvino")["peak_ms_of_graph"] == pytest.approx(1000)


def test_a_product_is_no_peak(limit):
    found = limit(FLOAT, precision="fp32", machine=replace(MACHINE, peaks=None))
    assert found["graph_share_of_product"] == pytest.approx(1000 / 500 / 10)
    names = ("peak_ms_of_done", "done_share_of_peak", "peak_ms_of_graph", "graph_share_of_peak")
    assert {found[name] for name in names} == {None}


def test_an_unknown_method_has_no_share_of_what_is_done(limit):
    found = limit(FLOAT, replace(FLOAT, method=None), precision="fp32")
    assert found["done_share_of_peak"] is found["done_operations_per_frame"] is found["methods"] is None
    assert found["graph_share_of_peak"] == pytest.approx(0.2)


def test_on_a_cpu_the_peaks_of_all_precisions_are_measured():
    lines = []
    machine = measure_machine("cpu", {"int8"}, 0.01, lines.append)
    assert machine.peaks.operations_per_s["fp32"] > 1e9  # of the float layers
    assert "fp32" in machine.rates.product_operations_per_s
    assert lines == ["measuring what this machine can do at most"]


def test_without_llvmlite_a_note_says_that_a_product_is_no_limit(monkeypatch):
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    lines = []
    machine = measure_machine("cpu", {"fp32"}, 0.01, lines.append)
    assert machine.peaks is None
    assert "fp32" in machine.rates.product_operations_per_s
    assert lines[1].startswith("note: no peak, so shares are of a matrix product's rate, which is no limit: llvmlite ")


@pytest.mark.parametrize(("machine", "device", "method"), [("aarch64", "cpu", None), ("x86_64", "cuda", None)])
def test_libraries_may_take_winograd_on_arm_and_on_a_gpu(exported, monkeypatch, machine, device, method):
    from types import SimpleNamespace

    monkeypatch.setattr(limits.platform, "machine", lambda: machine)
    stream = SimpleNamespace(session=SimpleNamespace(backend="onnxruntime"))
    case = Case("c", "auto", "fp32", 1, exported(), stream, "", 0)
    assert {layer.method for layer in limits._work_of(case, None, Path(), device).layers} == {method}
