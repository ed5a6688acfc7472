"""ncnn's methods are found by trial, and their multiplications counted by hand."""

import pytest

from salema.benchmarks.speed import ncnn_work
from salema.benchmarks.speed.ncnn_work import count_ncnn_work
from salema.benchmarks.speed.work import count_work
from salema.runtime.backends.ncnn_form import read_form
from salema.runtime.backends.ncnn_session import load_into, load_net

LAYER = "0=16 1=3 4=1 5=1 6=2304 -23330=4,3,14,10,16"  # 16 to 16 channels, 10x14
MULTIPLICATIONS = {  # tiles x inputs of a tile; a direct layer's taps inside the map
    "direct": (3 * 10 - 2) * (3 * 14 - 2),
    "F(2,3)": (5 * 7) * 4**2,
    "F(4,3)": (3 * 4) * 6**2,
    "F(6,3)": (2 * 3) * 8**2,
}


@pytest.fixture(autouse=True)
def _tried_anew():
    ncnn_work._method.cache_clear()
    yield
    ncnn_work._method.cache_clear()


def net_with(form):
    """`load_net` that allows one form of Winograd's method alone."""

    def load(param, weights, precision="fp32"):
        return load_into(ncnn_work._like(load_net(param, weights), form), param, weights)

    return load


@pytest.mark.parametrize("form", MULTIPLICATIONS)
def test_the_form_is_found_that_a_session_takes(form, monkeypatch):
    monkeypatch.setattr(ncnn_work, "load_net", net_with(form))
    layers = f"7767517\n1 1\nConvolution c 1 1 a b {LAYER}\n"
    (layer,) = count_ncnn_work(layers, batch=3).layers
    assert layer.method == form
    assert layer.done_operations == 2 * 3 * 16 * 16 * MULTIPLICATIONS[form]
    assert layer.operations == 2 * 3 * 16 * 16 * 9 * 10 * 14
    assert (layer.is_int8, layer.done_in) == (False, None)


def test_a_result_of_no_form_leaves_the_method_unknown(monkeypatch):
    monkeypatch.setattr(ncnn_work.np, "array_equal", lambda *_: False)
    layers = f"7767517\n1 1\nConvolution c 1 1 a b {LAYER}\n"
    work = count_ncnn_work(layers, batch=1)
    assert work.layers[0].method is None
    assert work.done_operations is None
    assert work.operations == 2 * 16 * 16 * 9 * 10 * 14


def test_a_model_has_the_graphs_operations_and_its_first_and_last_layer_run_directly(exported):
    model = exported() / "model.onnx"
    work, graph = count_ncnn_work(read_form(model).param, 1), count_work((model,), 1)
    assert [layer.operations for layer in work.layers] == [layer.operations for layer in graph.layers]
    assert work.bytes_in("fp32") == graph.bytes_in("fp32")
    assert work.is_known
    methods = [layer.method for layer in work.layers]
    assert methods[0] == methods[-1] == "direct"  # three channels; a kernel of 1x1
    assert sum(method.startswith("F(") for method in methods) >= 15  # a few have too few channels
    assert 0.2 < work.done_operations / work.operations < 0.7


@pytest.mark.parametrize(
    ("machine", "shape", "method", "done_in"),
    [
        ("x86_64", LAYER, "F(4,3)", "int16"),
        ("x86_64", f"{LAYER} 31=96", "direct", None),
        ("x86_64", "0=8 1=3 4=1 5=1 6=576 -23330=4,3,14,10,8", "direct", None),
        ("x86_64", "0=16 1=1 4=0 5=1 6=256 -23330=4,3,14,10,16", "direct", None),
        ("aarch64", LAYER, None, None),
    ],
)
def test_int8_layers_are_known_on_x86(machine, shape, method, done_in, monkeypatch):
    monkeypatch.setattr(ncnn_work.platform, "machine", lambda: machine)
    layers = f"7767517\n1 1\nConvolution c 1 1 a b {shape} 8=1\n"
    (layer,) = count_ncnn_work(layers, batch=1).layers
    assert (layer.method, layer.done_in, layer.is_int8) == (method, done_in, True)
    if method == "F(4,3)":
        assert layer.done_operations == 2 * 16 * 16 * MULTIPLICATIONS["F(4,3)"]
