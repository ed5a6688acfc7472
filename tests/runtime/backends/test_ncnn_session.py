"""ncnn: parity with the published maps, damaged forms, what it says where it is missing, memory, threads."""

import json
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from salema.export.graph.models import SaliencyStep
from salema.export.graph.to_ncnn import ncnn_form
from salema.export.graph.to_onnx import describe
from salema.export.weights.architecture import Architecture
from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.backends.ncnn_form import FORM_KEY
from salema.runtime.backends.opening import open_session
from salema.runtime.errors import ModelError, UsageError
from salema.runtime.model_folder import NCNN_FILES
from salema.runtime.onnx_metadata import read_spec


@pytest.fixture(scope="module")
def whole(exported):
    """A narrow SalEMA30, which tests must not change."""
    return exported()


@pytest.mark.parametrize(
    ("case", "architecture"),
    [
        ("salgan", Architecture("salgan")),
        ("salema30_direct_a0.1", Architecture("salema", (30,))),
        ("salclstm30", Architecture("salclstm30")),
    ],
)
def test_the_published_code_gives_the_same_maps(exported, tmp_path, golden, seeded_arrays, disc, case, architecture):
    """Uses the full width, at which ncnn uses Winograd convolutions."""
    weights = {key: torch.from_numpy(array) for key, array in seeded_arrays(architecture.kind).items()}
    step = SaliencyStep(architecture, weights)
    spec = read_spec(exported(arch=architecture.kind) / "model.onnx")
    spec = replace(spec, states=step.state_specs(spec.height, spec.width))
    tensors = [
        onnx.numpy_helper.from_array(array, key)
        for name, array in weights.items()
        for key, array in [(name, array.numpy())]
    ]
    proto = onnx.helper.make_model(onnx.helper.make_graph([], "weights", [], [], tensors))
    describe(proto, spec, ncnn_form(step, spec))
    onnx.save(proto, tmp_path / "model.onnx")
    with load(tmp_path, backend="ncnn") as stream:
        np.testing.assert_allclose([stream.step(frame) for frame in disc], golden[case], atol=1e-5)
        states = stream.snapshot()
        for index, state in enumerate(stream.spec.states):
            sums = [states[state.name].sum(dtype=np.float64), np.abs(states[state.name]).sum(dtype=np.float64)]
            np.testing.assert_allclose(sums, golden[f"{case}/state{index}_sum"], rtol=1e-5, atol=0.1)


@pytest.mark.parametrize(("width", "imgsz_hw"), [("seeded:64", (16, 16)), ("seeded:256", (48, 80))])
def test_sizes_and_widths_that_no_vector_divides(exported, imgsz_hw, width):
    """ncnn packs channels by 4, 8 or 16 and pads planes to 16 bytes."""
    folder = exported(width, imgsz_hw=imgsz_hw, ema_locs=(1,))
    with load(folder, backend="ncnn") as stream, load(folder, backend="onnxruntime", device="cpu") as other:
        for frame in moving_disc(3, *imgsz_hw):
            np.testing.assert_allclose(stream.step(frame), other.step(frame), atol=1e-5)
        expected = other.snapshot()["ema1"]
        np.testing.assert_allclose(stream.snapshot()["ema1"], expected, atol=1e-5 * max(np.abs(expected).max(), 1))


def test_files_of_ncnn_are_for_other_programs(whole, tmp_path):
    for name in NCNN_FILES:
        (tmp_path / name).touch()
        with pytest.raises(UsageError, match=rf"{name}: a file for ncnn's own programs; name its folder, {tmp_path}"):
            open_session(tmp_path / name)


@pytest.mark.parametrize("options", [{"for_": "onnxruntime"}, {"for_": "openvino"}], ids=str)
def test_graphs_whose_weights_are_summed_have_no_form(exported, options):
    with pytest.raises(ModelError, match="model.onnx: holds no form for ncnn; export it again without --split, --for"):
        open_session(exported(**options), "ncnn")


def test_split_models_are_refused(exported):
    with pytest.raises(UsageError, match=r"--backend ncnn: .* holds a split model; take --backend onnxruntime"):
        open_session(exported(split=True), "ncnn")


def test_ncnn_does_not_run_on_a_gpu(whole):
    with pytest.raises(UsageError, match="--backend ncnn --device cuda:1: it runs on the CPU only"):
        open_session(whole, "ncnn", "cuda:1")


def with_form(model, folder, change):
    """Writes a copy of a model into a folder, its form changed as JSON text."""
    proto = onnx.load(model / "model.onnx")
    (entry,) = [each for each in proto.metadata_props if each.key == FORM_KEY]
    changed = change(entry.value)
    assert changed != entry.value
    entry.value = changed
    onnx.save(proto, folder / "model.onnx")
    return folder


def without(name):
    def change(text):
        record = json.loads(text)
        del record[name]
        return json.dumps(record)

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text[:100], "its form for ncnn is damaged"),
        (lambda _: "[]", "its form for ncnn is damaged"),
        (lambda _: '{"param": 3, "constants": {}}', "its form for ncnn is damaged"),
        (without("param"), "its form for ncnn is damaged"),
        (lambda text: text.replace(r"\nConvolution salgan.2 ", " ", 1), "damaged .*layers are missing"),
        (lambda text: text.replace("Convolution salgan.2 ", "Convolution salgan.3 "), "don't fit .*salgan.3.weight"),
        (lambda text: text.replace(" 6=144 ", " 6=1440 "), "don't fit .*salgan.2 has 144 weights, and not 1440"),
        (lambda text: text.replace('"bias_', '"vias_'), "don't fit .*bias_"),
    ],
)
def test_damaged_forms(whole, tmp_path, disc, change, sentence):
    folder = with_form(whole, tmp_path, change)
    with pytest.raises(ModelError, match=sentence) as error:
        open_session(folder, "ncnn")
    assert "export it again" in str(error.value)
    with load(folder, device="cpu") as stream:
        assert stream.step(disc[0]).shape == (64, 96)
        assert "form for ncnn" in stream.description


def test_a_layer_that_ncnn_does_not_know_is_told(whole, tmp_path, capfd):
    folder = with_form(whole, tmp_path, lambda text: text.replace("Sigmoid", "Sigmoit"))
    with open_session(folder, device="cpu") as session:
        assert "; ncnn passed over: ncnn 1.0" in session.reason
        assert "can't load the model; upgrade it with: pip install -U ncnn" in session.reason


def test_the_facts_are_those_of_the_onnx_file(whole):
    with open_session(whole, "ncnn") as session:
        assert session.spec == read_spec(whole / "model.onnx")


def test_a_float16_model_is_computed_in_float32(exported, disc):
    folder = exported(precision="fp16")
    with load(folder, backend="ncnn") as stream, load(folder, backend="openvino") as other:
        assert stream.session.computes_in == other.session.computes_in == "fp32"
        for frame in disc[:3]:
            np.testing.assert_allclose(stream.step(frame), other.step(frame), atol=3e-3)


def test_without_ncnn_the_error_has_the_install_line(whole):
    code = f"""
import sys
sys.modules["ncnn"] = None
from salema.runtime.backends.opening import open_session
from salema.runtime.errors import MissingDependencyError
print(open_session({str(whole)!r}, device="cpu").description)
try:
    open_session({str(whole)!r}, "ncnn")
except MissingDependencyError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stderr == ""
    auto, explicit = ran.stdout.splitlines()
    assert "ncnn" not in auto
    assert explicit.startswith("ncnn can't be imported (")
    assert explicit.endswith("install it with: pip install 'salema[ncnn]'")


def test_memory_does_not_grow(whole):
    """Runs in its own process, where nothing else takes or frees memory."""
    code = f"""
import numpy as np
from salema.runtime import load
with load({str(whole)!r}, backend="ncnn") as stream:
    for _ in range(2):
        for _ in range(150):
            stream.step(np.zeros((64, 96, 3), np.uint8))
        print(open("/proc/self/statm").read().split()[1])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    before, after = map(int, ran.stdout.split())
    assert (after - before) * resource.getpagesize() < 150 * 24_576 / 4  # a quarter of a map for each step


def test_sessions_and_threads_do_not_disturb_each_other(whole, disc):
    def run(_):
        with load(whole, backend="ncnn") as stream:
            return np.stack([stream.step(frame) for frame in disc])

    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(run, range(8)))
    for maps in runs[1:]:
        np.testing.assert_array_equal(maps, runs[0])


def test_one_session_serves_several_threads(whole, disc):
    with open_session(whole, "ncnn") as session:
        states = session.from_host({"ema30": np.zeros((1, 32, 4, 6), np.float32)})
        first = np.ones(1, np.float32)
        expected = [session.step(frame[None], states, first)[0] for frame in disc]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda frame: session.step(frame[None], states, first)[0], [*disc] * 4))
    np.testing.assert_array_equal(found, expected * 4)


def test_where_no_file_is_in_memory_only_a_temporary_one_will_do(whole, disc, monkeypatch):
    with load(whole, backend="ncnn") as stream:
        expected = stream.step(disc[0])
    monkeypatch.setattr("salema.runtime.backends.ncnn_session._HAS_MEMORY_FILES", False)
    with load(whole, backend="ncnn") as stream:
        np.testing.assert_array_equal(stream.step(disc[0]), expected)
