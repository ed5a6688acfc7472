"""OpenVINO: its precisions, its telemetry, what it refuses."""

import importlib
import os
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.backends import openvino_session
from salema.runtime.backends.opening import open_session
from salema.runtime.backends.openvino_graph import transpose_upsampling, transposed_kernel
from salema.runtime.cpu import usable_cores
from salema.runtime.errors import BackendError, ModelError, UsageError
from salema.runtime.wording import counted

TOLERANCE = {"openvino": 1e-5, "openvino-bf16": 0.03}
BACKENDS = ["openvino", pytest.param("openvino-bf16", marks=pytest.mark.bf16)]
OPEN = """
import sys
from salema.runtime.backends.opening import open_session
with open_session(*sys.argv[1:]) as session:
    print(session.description)
"""


def in_a_fresh_process(code, *arguments, **environment):
    """Returns what a program in its own process prints, with all GPUs hidden."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""} | environment
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"for_": "openvino"}, {"precision": "fp16"}], ids=str)
def test_maps_and_states_are_those_of_onnx_runtime(exported, backend, options):
    plain, folder = exported(), exported(**options)
    tolerance = max(TOLERANCE[backend], 3e-3 if "precision" in options else 0)
    with load(plain, backend="onnxruntime", device="cpu") as one, load(folder, backend=backend) as other:
        for frame in moving_disc(5, 90, 120):
            assert np.abs(other.step(frame) - one.step(frame)).max() <= tolerance
        expected, found = one.snapshot()["ema30"], other.snapshot()["ema30"]
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= tolerance * expected.max()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("for_", ["any", "openvino"])
def test_an_average_with_a_small_coefficient_does_not_stall(exported, disc, backend, for_):
    """In bfloat16 it would not change: a step changes 0.0002 of the state, and half an ulp is at least 0.0019."""
    with open_session(exported(for_=for_), backend) as session:
        zeros = {"ema30": np.zeros((1, 32, 4, 6), np.float32)}
        _, states = session.step(disc[:1], session.from_host(zeros), np.ones(1, np.float32))
        fresh = session.to_host(states)["ema30"].astype(np.float64)
        states = session.from_host({"ema30": (0.9 * fresh).astype(np.float32)})
        for _ in range(100):
            _, states = session.step(disc[:1], states, np.full(1, 0.002, np.float32))
        expected = fresh * (1 - 0.1 * 0.998**100)
        np.testing.assert_allclose(session.to_host(states)["ema30"], expected, rtol=2e-5)


@pytest.mark.parametrize(("options", "count"), [({}, 4), ({"for_": "openvino"}, 0), ({"ema_locs": (61,)}, 4)], ids=str)
def test_upsamplings_of_a_plain_graph_are_folded_as_it_is_loaded(exported, options, count):
    network = openvino_session.ov.Core().read_model(str(exported(**options) / "model.onnx"))
    assert transpose_upsampling(network, importlib.import_module("openvino.opset13")) == count
    kinds = [node.get_type_name() for node in network.get_ordered_ops()]
    assert "Interpolate" not in kinds
    assert kinds.count("ConvolutionBackpropData") == 4


def test_a_session_runs_the_folded_graph(model):
    with open_session(model, "openvino", "cpu") as session:
        nodes = session._request.get_compiled_model().get_runtime_model().get_ops()
        kinds = [node.get_rt_info()["layerType"] for node in nodes]
    assert kinds.count("Deconvolution") == 4
    assert "Interpolate" not in kinds


def test_the_folded_kernel_does_what_the_two_layers_do():
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(5, 3, 3, 3)), torch.from_numpy(rng.normal(size=(1, 3, 6, 7)))
    expected = torch.conv2d(torch.nn.Upsample(scale_factor=2)(x), torch.from_numpy(weight), padding=1)
    kernel = torch.from_numpy(transposed_kernel(weight))
    found = torch.conv_transpose2d(x, kernel, stride=2, padding=1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_states_are_openvino_s_tensors(model, disc):
    with open_session(model, "openvino") as session:
        before = session.from_host({"ema30": np.ones((1, 32, 4, 6), np.float32)})
        _, after = session.step(disc[:1], before, np.full(1, 0.1, np.float32))
        _, last = session.step(disc[1:2], after, np.full(1, 0.1, np.float32))
        assert {type(value).__module__.partition(".")[0] for value in (*before, *after, *last)} == {"openvino"}
        assert len({value.data.ctypes.data for value in (*before, *after, *last)}) == 3
        assert (session.to_host(before)["ema30"] == 1).all()


def test_a_frame_that_is_a_view_and_can_not_be_written_to(model, disc):
    states = {"ema30": np.zeros((1, 32, 4, 6), np.float32)}
    mix = np.ones(1, np.float32)
    mirrored = disc[:1, :, ::-1]
    mirrored.flags.writeable = False
    with open_session(model, "openvino") as session:
        maps, _ = session.step(mirrored, session.from_host(states), mix)
        expected, _ = session.step(mirrored.copy(), session.from_host(states), mix)
    np.testing.assert_array_equal(maps, expected)


def test_the_description_names_the_precision(model):
    with open_session(model, "openvino") as session:
        assert (
            session.description
            == f"OpenVINO {openvino_session.VERSION} on cpu in float32, {counted(usable_cores(), 'thread')}"
        )


@pytest.mark.parametrize("all_cores", [True, False])
def test_threads_are_pinned_only_where_they_fill_all_cores(model, monkeypatch, all_cores):
    """Two sessions with a thread each were pinned to the same core, and took twice the time."""
    monkeypatch.setattr(openvino_session, "fill_all_cores", lambda threads: all_cores and threads == 1)
    session = openvino_session.OpenVinoSession(model / "model.onnx", "openvino", threads=1)
    assert session._request.get_compiled_model().get_property("ENABLE_CPU_PINNING") is all_cores
    session.close()


def test_bfloat16_where_the_cpu_has_none(model, monkeypatch):
    monkeypatch.setattr(openvino_session, "capabilities", lambda core: ["FP32", "INT8"])
    with pytest.raises(
        BackendError, match=r"--backend openvino-bf16: this CPU has no bfloat16 \(OpenVINO lists FP32, I"
    ):
        open_session(model, "openvino-bf16")


@pytest.mark.parametrize("backend", ["openvino", "openvino-bf16"])
def test_models_that_openvino_does_not_run(exported, model, backend):
    with pytest.raises(UsageError, match=f"--backend {backend} --device cuda:1: it runs on the CPU only"):
        open_session(model, backend, "cuda:1")
    split = exported(split=True)
    for path in (split, split / "encoder.onnx"):
        with pytest.raises(
            UsageError, match=f"--backend {backend}: .* holds a split model; take --backend onnxruntime"
        ):
            open_session(path, backend)


def test_half_of_a_split_model_under_another_name(exported, tmp_path):
    (tmp_path / "model.onnx").write_bytes((exported(split=True) / "decoder.onnx").read_bytes())
    with pytest.raises(ModelError, match="the decoder of a split model; export it again without --split"):
        open_session(tmp_path, "openvino")


def rename_input(proto):
    for node in proto.graph.node:
        node.input[:] = ["alpha" if name == "mix" else name for name in node.input]
    proto.graph.input[2].name = "alpha"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (rename_input, "inputs and outputs are not those of its metadata"),
        (lambda proto: proto.graph.output.pop(), "inputs and outputs are not those of its metadata"),
        (lambda proto: setattr(proto.graph.node[0], "op_type", "Nope"), r"can't load it \(.*Nope.*\); export it again"),
        (lambda proto: proto.metadata_props.pop(0), "not one that salema-export wrote"),
    ],
)
def test_foreign_models(model, tmp_path, change, sentence):
    proto = onnx.load(model / "model.onnx")
    change(proto)
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=sentence):
        open_session(tmp_path, "openvino")


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_damaged_models(model, tmp_path, keep):
    data = (model / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(ModelError, match="not an ONNX file, or cut off|not one that salema-export wrote"):
        open_session(tmp_path, "openvino")


def test_without_openvino_auto_takes_onnx_runtime_and_its_name_gives_the_install_line(exported):
    folder = exported(for_="openvino")
    hidden = "import sys\nsys.modules['openvino'] = None\n"
    assert in_a_fresh_process(hidden + OPEN, folder).startswith("ONNX Runtime")  # ncnn has no form of this graph
    code = """
import sys
sys.modules["openvino"] = None
from salema.runtime.errors import MissingDependencyError
from salema.runtime.backends.opening import open_session
try:
    open_session(sys.argv[1], "openvino")
except MissingDependencyError as error:
    print(error)
"""
    said = in_a_fresh_process(code, folder)
    assert said.startswith("OpenVINO can't be imported (")
    assert said.endswith("; install it with: pip install 'salema[openvino]'\n")


def test_auto_says_that_openvino_is_installed_and_broken(exported, tmp_path):
    (tmp_path / "openvino.py").write_text("raise ImportError('libsomething.so: not there')\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(exported(for_="openvino") / "model.onnx", folder)  # without the trial beside it
    said = in_a_fresh_process(OPEN, folder, PYTHONPATH=path)
    assert said.startswith("ONNX Runtime")
    assert "; openvino passed over: OpenVINO can't be imported (libsomething.so: not there); install it" in said


def test_nothing_is_sent_or_left_behind(exported, tmp_path):
    """With a plain import, OpenVINO calls Google Analytics and writes an identity to ~/intel."""
    code = OPEN + "print('openvino_telemetry' in sys.modules, 'openvino_telemetry.main' in sys.modules)\n"
    folder = exported(for_="openvino")
    before = sorted(path.name for path in folder.iterdir())
    said = in_a_fresh_process(code, folder, "openvino", HOME=str(tmp_path), TMPDIR=str(tmp_path), CI="")
    assert said.splitlines()[1:] == ["False False"]
    assert list(tmp_path.iterdir()) == []
    assert sorted(path.name for path in folder.iterdir()) == before
