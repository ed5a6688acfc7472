"""ONNX Runtime, and how models are found and refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from salema.export.serving.graphs import looped, sequenced
from salema.runtime.backends import ort_session
from salema.runtime.backends.opening import open_session
from salema.runtime.backends.ort_session import CUDA, TENSORRT
from salema.runtime.errors import BackendError, ModelError, UsageError
from salema.runtime.onnx_metadata import read_spec
from salema.runtime.session import step_error
from salema.runtime.spec import SPEC_VERSION


def test_states_are_handles_that_are_not_copied_to_the_host(model, disc):
    """Each step's output OrtValue is the next step's input, and the host sees it only on demand."""
    with open_session(model, "onnxruntime") as session:
        states = session.from_host({"ema30": np.zeros((1, 32, 4, 6), np.float32)})
        mix = np.ones(1, np.float32)
        for frame in disc:
            maps, after = session.step(frame[None], states, mix)
            assert type(after[0]).__name__ == "OrtValue"
            assert after[0].data_ptr() != states[0].data_ptr()
            states, mix = after, np.full(1, 0.1, np.float32)
        assert maps.shape == (1, 64, 96)
        assert session.to_host(states)["ema30"].shape == (1, 32, 4, 6)


def test_waiting_threads_leave_the_cores_to_others(model):
    with open_session(model, "onnxruntime", "cpu", threads=2) as session:
        options = session._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == 2


@pytest.mark.parametrize(("option", "value"), [("backend", "tensorflow"), ("device", "tpu")])
def test_unknown_backends_and_devices(model, option, value):
    with pytest.raises(UsageError, match=f"--{option} {value}: not one of auto"):
        open_session(model, **{option: value})


def test_missing_cuda_is_an_error_and_auto_says_what_it_took(model):
    import onnxruntime as ort

    if "CUDAExecutionProvider" in ort.get_available_providers():
        with open_session(model) as session:
            assert "auto: CUDA" in session.description
        return
    with pytest.raises(BackendError, match=r"pip install 'salema\[gpu\]'"):
        open_session(model, device="cuda")
    with open_session(model) as session:
        assert session.device == "cpu"


@pytest.fixture
def tensorrt_listed(monkeypatch):
    """ONNX Runtime as built for GPUs: it lists TensorRT, which can't start here; gives what it is asked for."""
    import onnxruntime as ort

    asked = []
    opened = ort.InferenceSession

    def open_noted(*args, providers, **options):
        asked.append(dict(providers))
        return opened(*args, providers=providers, **options)

    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")  # which the session sets
    monkeypatch.setattr(ort, "InferenceSession", open_noted)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, "CPUExecutionProvider"])
    return asked


def test_the_tensorrt_provider_is_asked_in_words_that_it_takes(model, tmp_path, tensorrt_listed):
    """Its binding throws for a flag that is none of these, 0 and 1 too (ONNX Runtime #14091)."""
    folder = altered(model, tmp_path, lambda _: None)
    with pytest.raises(BackendError, match=f"could not start {TENSORRT}"):
        open_session(folder, "onnxruntime-tensorrt")
    options = tensorrt_listed[0][TENSORRT]
    assert {value for name, value in options.items() if name.endswith("_enable")} <= {"True", "true", "False", "false"}
    assert options["trt_engine_cache_enable"].lower() == "true"
    assert Path(options["trt_engine_cache_path"]).is_dir()


def test_a_tensorrt_provider_that_cannot_start_says_which_tensorrt_it_needs(
    model, tmp_path, tensorrt_listed, monkeypatch
):
    folder = altered(model, tmp_path, lambda _: None)
    with pytest.raises(BackendError, match=r"libnvinfer\.so\.10 can't be loaded; .*pip install 'tensorrt<11'"):
        open_session(folder, "onnxruntime-tensorrt")
    monkeypatch.setattr(ort_session, "NVINFER", "libc.so.6")  # a library that loads
    with pytest.raises(BackendError, match=r"could not start .*; salema-doctor shows what is missing"):
        open_session(folder, "onnxruntime-tensorrt")


def altered(model, folder, change):
    proto = onnx.load(model / "model.onnx")
    change(proto)
    onnx.save(proto, folder / "model.onnx")
    return folder


def set_record(**changes):
    def change(proto):
        record = json.loads(proto.metadata_props[0].value) | changes
        proto.metadata_props[0].value = json.dumps(record)

    return change


def rename_input(proto):
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            if name == "mix":
                node.input[index] = "alpha"
    proto.graph.input[2].name = "alpha"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda proto: proto.metadata_props.pop(0), "not one that salema-export wrote"),
        (
            set_record(spec_version=SPEC_VERSION + 1, salema_version="9.1"),
            rf"written by salema 9\.1 in model format {SPEC_VERSION + 1}.*pip install -U",
        ),
        (set_record(colour="red"), r"lacks or has unknown entries \(colour\)"),
        (set_record(spec_version="new"), "metadata can't be read"),
        (lambda proto: setattr(proto.metadata_props[0], "value", "{"), "metadata can't be read"),
        (set_record(states="x"), "metadata is damaged"),
        (set_record(states=[{}]), "metadata is damaged"),
        (set_record(rewrites=None), "metadata is damaged"),
        (set_record(coefficient=7), r"the coefficient must lie in \(0, 1\]"),
        (set_record(precision="int4"), "precision int4 is none of fp32, fp16, int8"),
        (set_record(part="encoder"), "parts and split don't go together"),
        (set_record(height="x"), "sizes must be whole numbers"),
        (set_record(height=128), "inputs and outputs are not those of its metadata"),
        (lambda proto: setattr(proto, "ir_version", 99), "upgrade it with: pip install -U onnxruntime"),
        (rename_input, "inputs and outputs are not those of its metadata"),
    ],
)
def test_foreign_models(model, tmp_path, change, sentence):
    with pytest.raises(ModelError, match=sentence):
        open_session(altered(model, tmp_path, change))


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_damaged_models(model, tmp_path, keep):
    data = (model / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(ModelError, match="ONNX Runtime .* can't load it|not one that salema-export wrote"):
        open_session(tmp_path)


def test_a_model_that_may_not_be_read(model, tmp_path):
    """As root everything can be read, so another user looks, from within the folder."""
    (tmp_path / "model.onnx").write_bytes((model / "model.onnx").read_bytes())
    (tmp_path / "model.onnx").chmod(0)
    tmp_path.chmod(0o755)
    user = 65534 if os.getuid() == 0 else os.getuid()
    code = (
        "import os\n"
        "from pathlib import Path\n"
        "from salema.runtime.backends.ort_session import OrtSession\n"
        f"os.setuid({user})\n"
        "OrtSession(Path('model.onnx'), 'cpu')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stderr.splitlines()[-1] == "PermissionError: [Errno 13] Permission denied: 'model.onnx'"


def test_missing_models(tmp_path):
    with pytest.raises(ModelError, match=r"no such model; make one with: salema-export --weights FILE -o .*absent"):
        open_session(tmp_path / "absent")
    with pytest.raises(ModelError, match="no such model"):
        open_session(tmp_path)


_FOR_A_SERVER = "a graph for Triton or DeepStream, which salema-export --emit wrote; name the model's own folder"


@pytest.mark.parametrize(
    ("backend", "sentence"),
    [
        *((backend, _FOR_A_SERVER) for backend in ("onnxruntime", "openvino", "auto")),
        ("ncnn", "no form for ncnn; .*of a graph that --emit wrote, name the model's own folder"),
    ],
)
@pytest.mark.parametrize("made", [sequenced, looped])
def test_a_graph_for_a_server_is_named_as_such(exported, tmp_path, backend, sentence, made):
    whole = exported(batch=None) / "model.onnx"
    (tmp_path / "model.onnx").write_bytes(made(whole.read_bytes(), read_spec(whole))[0])
    with pytest.raises(ModelError, match=sentence):
        open_session(tmp_path, backend, "cpu")


def test_an_aborted_step_is_told_as_such(model, disc, monkeypatch):
    make = ort_session.ort.RunOptions

    def aborted():
        options = make()
        options.terminate = True
        return options

    with open_session(model, "onnxruntime", "cpu") as session:
        states = session.from_host({"ema30": np.zeros((1, 32, 4, 6), np.float32)})
        monkeypatch.setattr(ort_session.ort, "RunOptions", aborted)
        with pytest.raises(BackendError, match="^the step was aborted$"):
            session.step(disc[:1], states, np.ones(1, np.float32))


def test_too_little_memory_in_a_step_stays_an_error_of_memory():
    error = step_error("ONNX Runtime", RuntimeError("Failed to allocate memory for requested buffer"), "")
    assert isinstance(error, MemoryError)
    assert "requested buffer" in str(error)
