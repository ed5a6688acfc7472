"""Which backend `auto` takes, what it says about those it passes over, and what an explicit choice needs."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from salema.export.engine.to_engine import build_engine
from salema.export.options import EngineOptions
from salema.runtime.backends.opening import open_session
from salema.runtime.cli.run import main
from salema.runtime.errors import ModelError, UsageError
from salema.runtime.gpu.engine_files import read_engine, sidecar_of, write_engine
from salema.runtime.gpu.trt_library import KINDS, TENSORRT, TENSORRT_RTX
from salema.runtime.session import BACKENDS

CODE = """
import sys
from salema.runtime.backends.opening import open_session
from salema.runtime.errors import SalemaError
try:
    with open_session(*sys.argv[1:]) as session:
        print(session.description)
except SalemaError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def folder(model, tmp_path):
    """A model with a TensorRT-RTX engine."""
    (tmp_path / "model.onnx").write_bytes((model / "model.onnx").read_bytes())
    build_engine(tmp_path / "model.onnx", TENSORRT_RTX, EngineOptions(targets=("sm89",)), lambda _: None)
    return tmp_path


def opened(*arguments):
    """Returns what opening a model prints, with all GPUs hidden."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", CODE, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stderr == ""
    return done.stdout.strip()


def test_auto_names_the_engine_that_it_passes_over_and_why(folder):
    said = opened(folder)
    assert " ms" in said
    assert "TensorRT-RTX passed over: no NVIDIA" in said


def test_auto_says_that_it_passes_over_a_stale_engine(folder, cli, small_clip):
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\x72\x00")  # one more, empty, metadata entry
    said = opened(folder)
    assert " ms" in said
    assert "TensorRT-RTX passed over" in said
    assert "model.onnx beside it is another by now; build the engine anew with: salema-export --from" in said
    ran = cli(main, small_clip, "--model", folder, "-o", folder / "out.mp4")
    assert ran.code == 0
    assert "TensorRT-RTX passed over" in ran.err


def test_without_engines_auto_does_not_mention_them(model):
    assert "TensorRT" not in opened(model)
    assert "TensorRT" not in opened(model, "auto", "cpu")


def test_if_onnx_runtime_fails_too_the_engine_s_reason_comes_first(folder):
    (folder / "model.onnx").unlink()
    said = opened(folder)
    assert said.startswith("BackendError TensorRT-RTX passed over: no NVIDIA")
    assert "; and then: " in said


def test_an_onnx_file_of_another_name_has_no_engine(folder):
    (folder / "model.onnx").rename(folder / "other.onnx")
    assert "passed over" not in opened(folder / "other.onnx")


def test_device_cpu_passes_over_no_engine(folder):
    assert "passed over" not in opened(folder, "auto", "cpu")


def test_an_explicit_engine_is_taken_or_refused(folder):
    assert opened(folder, "tensorrt-rtx").startswith("BackendError no NVIDIA")
    assert opened(folder / "model.rtx.engine").startswith("BackendError no NVIDIA")
    assert opened(folder / "model.rtx.engine", "tensorrt-rtx").startswith("BackendError no NVIDIA")
    said = opened(folder, "tensorrt")
    assert said.startswith("ModelError")
    assert "no TensorRT engine yet; build it here with: salema-export --from" in said


def test_an_engine_of_another_library_is_named_as_such(folder):
    facts = json.loads(sidecar_of(folder / "model.rtx.engine").read_text())
    assert facts["backend"] == "tensorrt-rtx"
    (folder / "model.engine").write_bytes((folder / "model.rtx.engine").read_bytes())
    sidecar_of(folder / "model.engine").write_text(json.dumps(facts))
    with pytest.raises(ModelError, match="built by tensorrt-rtx; run it with --backend tensorrt-rtx"):
        read_engine(folder / "model.engine", TENSORRT)


@pytest.mark.parametrize("backend", KINDS)
def test_engines_do_not_run_on_the_cpu(folder, backend):
    with pytest.raises(UsageError, match=f"--backend {backend} --device cpu: it runs on NVIDIA GPUs only"):
        open_session(folder, backend, "cpu")
    with pytest.raises(UsageError, match="TensorRT runs on NVIDIA GPUs only"):
        open_session(folder, "onnxruntime-tensorrt", "cpu")


def test_a_backend_that_can_not_run_an_engine_refuses_it(folder):
    engine = folder / "model.rtx.engine"
    with pytest.raises(UsageError, match=rf"{engine} --device cpu: engines run on NVIDIA GPUs only; name its folder, "):
        open_session(engine, device="cpu")
    for backend in ("onnxruntime", "openvino", "ncnn"):
        with pytest.raises(UsageError, match=rf"{engine}: an engine, which --backend {backend} can't run; name its fo"):
            open_session(engine, backend, "cpu")
    renamed = folder.rename(folder.with_name("folder.engine"))
    with open_session(renamed, device="cpu") as session:
        assert " ms" in session.reason


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "cuda:-1", "gpu", "CUDA", "cuda:1234", ""])
def test_unknown_devices_are_refused(model, device):
    with pytest.raises(UsageError, match=rf"--device {device}: not one of auto, cpu, cuda, cuda:N"):
        open_session(model, device=device)


def test_every_backend_that_the_help_names_is_known(cli):
    ran = cli(main, "--help")
    words = "".join(ran.out.split())  # lines may break at a hyphen
    for backend in BACKENDS:
        assert backend in words


def test_the_engine_facts_keep_the_model_with_them(folder):
    """An engine without its ONNX file beside it still has all its facts."""
    plan, info = read_engine(folder / "model.rtx.engine", TENSORRT_RTX)
    (folder / "elsewhere").mkdir()
    moved = folder / "elsewhere/model.rtx.engine"
    write_engine(moved, plan, dataclasses.replace(info, build_seconds=2.0))
    assert read_engine(moved, TENSORRT_RTX)[1].spec == info.spec
