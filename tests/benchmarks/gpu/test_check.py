"""What `make gpu-check` compares, and what it can run where."""

import json
import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from salema.benchmarks.gpu import available, cases, check
from salema.benchmarks.gpu.available import unavailable
from salema.benchmarks.gpu.cases import openers
from salema.benchmarks.gpu.gpu_tests import GPU_TESTS
from salema.benchmarks.gpu.parity import Parity, compare_with_torch, true_steps
from salema.benchmarks.machine.environment import describe_environment
from salema.benchmarks.peers.torch_peers import TorchOptions, TorchStream
from salema.benchmarks.speed.cases import Plan, open_cases
from salema.export.weights.architecture import choose_architecture
from salema.export.weights.checkpoints import load_checkpoint
from salema.export.weights.seeded import moving_disc
from salema.kernels.gpus import Gpu
from salema.runtime.backends.opening import open_session
from salema.runtime.backends.ort_session import CUDA, TENSORRT
from salema.runtime.errors import BackendError, ModelError
from salema.runtime.stream import SaliencyStream


@pytest.fixture(scope="module")
def truth(model):
    checkpoint = load_checkpoint("seeded:16")
    architecture, _ = choose_architecture("salema", checkpoint.hint, "auto", (), None)
    with open_session(model, "onnxruntime", "cpu") as session:
        return TorchStream(architecture, checkpoint.weights, session.spec, TorchOptions(), "cpu")


def test_every_file_with_gpu_tests_is_run():
    root = Path(__file__).parents[3]
    marked = {str(path.relative_to(root)) for path in root.glob("tests/**/test_*.py") if "mark.gpu" in path.read_text()}
    assert marked == set(GPU_TESTS)


def test_parity_counts_maps_and_states_over_all_frames(model, truth):
    with open_session(model, "onnxruntime", "cpu") as session:
        found = compare_with_torch(session, true_steps(truth, moving_disc(40, 64, 96)), moving_disc(40, 64, 96))
    assert found.beyond("fp32") is None
    assert found.frames == 40
    assert found.map_max < 1e-5
    assert found.state_error < 1e-5
    assert found.cc > 0.99999
    assert found.map_mean < found.map_max


def test_parity_can_fail(exported, truth):
    """A model with another coefficient is told apart, by maps and by states."""
    with open_session(exported(alpha=0.3), "onnxruntime", "cpu") as session:
        found = compare_with_torch(session, true_steps(truth, moving_disc(10, 64, 96)), moving_disc(10, 64, 96))
    assert re.fullmatch(r"a map differs by 0\.\d+, more than 0\.0001", found.beyond("fp32"))
    assert found.map_max > 1e-3
    assert found.state_error > 1e-2
    assert found.state_error_last <= found.state_error


def test_parity_has_a_bound_for_each_precision():
    good = Parity(frames=9, map_max=0.001, map_mean=1e-4, state_error=0.1, state_error_last=0.1, cc=0.9995)
    assert good.beyond("fp16") is None
    assert good.beyond("fp32") == "a map differs by 0.001, more than 0.0001"
    assert replace(good, map_max=0.03).beyond("fp16") == "a map differs by 0.03, more than 0.02"
    assert replace(good, cc=0.9981).beyond("fp16") == "two maps correlate by 0.9981, 0.999 or less"
    for name in ("map_max", "state_error", "cc"):
        assert replace(good, **{name: float("nan")}).beyond("fp16") == "a difference is not finite"


def test_pytorch_starts_anew_on_a_reset(truth):
    frames = moving_disc(3, 64, 96)
    truth.reset()
    first = [truth.infer(frame[None]) for frame in frames]
    carried = truth.infer(frames[:1])
    truth.reset()
    np.testing.assert_array_equal([truth.infer(frame[None]) for frame in frames], first)
    assert np.abs(carried - first[0]).max() > 1e-3


def test_on_a_gpu_every_backend_is_tried_with_graphs_on_and_off_and_both_state_schemes(tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "unavailable", {"tensorrt-rtx": "not for this GPU"}.get)
    ways = openers(tmp_path, tmp_path, device="cuda")
    names = ["onnxruntime cuda", "onnxruntime-tensorrt", "tensorrt-rtx"]
    names += [f"tensorrt, {how}" for how in ("graphs, split", "graphs, ping-pong", "graphs, copy")]
    names += [f"tensorrt, no graphs, {scheme}" for scheme in ("ping-pong", "copy")]
    assert sorted(ways) == sorted(names)
    with pytest.raises(BackendError, match="not for this GPU"):
        ways["tensorrt-rtx"]()


def test_tensorrt_rtx_is_passed_over_where_it_does_not_know_the_gpu(monkeypatch):
    """Its wheel installs beside an H200 too."""
    for capability, knows in (((9, 0), False), ((8, 9), True)):
        gpu = Gpu(0, "GPU", capability, 1, integrated=False)
        monkeypatch.setattr(available, "list_gpus", lambda gpu=gpu: [gpu])
        assert (unavailable("tensorrt-rtx") is None) == knows
    assert unavailable("onnxruntime").endswith("has no CUDAExecutionProvider")
    assert unavailable("onnxruntime-tensorrt").endswith("has no TensorrtExecutionProvider")
    assert unavailable("tensorrt").startswith("TensorRT can't be imported")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [TENSORRT, CUDA])
    assert unavailable("onnxruntime") is None
    assert "libnvinfer.so.10" in unavailable("onnxruntime-tensorrt")


def test_a_test_of_a_backend_that_this_gpu_cannot_run_is_passed_over_with_why(monkeypatch, request):
    path = str(Path(__file__).parents[2] / "conftest.py")
    [ours] = [
        plugin for plugin in request.config.pluginmanager.get_plugins() if getattr(plugin, "__file__", "") == path
    ]
    for module in (ours, available):
        monkeypatch.setattr(module, "list_gpus", lambda: [Gpu(0, "H200", (9, 0), 1, integrated=False)])

    def set_up(mark):
        ours.pytest_runtest_setup(SimpleNamespace(get_closest_marker={"gpu": mark.mark}.get))

    set_up(pytest.mark.gpu)
    with pytest.raises(pytest.skip.Exception, match="^TensorRT-RTX knows .*, and H200 is sm90$"):
        set_up(pytest.mark.gpu("tensorrt-rtx"))


def test_a_case_that_cannot_run_is_a_record_and_not_the_end_of_the_bench(exported, tmp_path):
    model = exported(for_="onnxruntime")  # ncnn has no form of this graph
    plan = Plan((model,), ("ncnn", "onnxruntime"), device="cpu", duration_s=0.1)
    why = {}
    with ExitStack() as stack:
        opened = open_cases(plan, None, stack, tmp_path, why)
        assert [case.backend for case in opened] == ["onnxruntime"]
    [(name, told)] = why.items()
    assert name == f"{model.name}: ncnn"
    assert "ncnn" in told
    with ExitStack() as stack, pytest.raises(ModelError):
        open_cases(plan, None, stack, tmp_path)
    with ExitStack() as stack, pytest.raises(BackendError, match="none of what was to be compared can run here"):
        open_cases(replace(plan, backends=("ncnn",)), None, stack, tmp_path, {})


def test_a_case_whose_first_steps_fail_is_passed_over(model, tmp_path, monkeypatch):
    """The first step of a GPU session is recorded, and a later one, which is replayed, may be the one that fails."""
    steps, infer = [], SaliencyStream.infer

    def failing(stream, frames):
        steps.append(stream.session.backend)
        if steps[-3:] == ["ncnn"] * 3:
            raise BackendError("the GPU stopped")
        return infer(stream, frames)

    monkeypatch.setattr(SaliencyStream, "infer", failing)
    why = {}
    with ExitStack() as stack:
        plan = Plan((model,), ("ncnn", "onnxruntime"), device="cpu")
        assert [case.backend for case in open_cases(plan, None, stack, tmp_path, why)] == ["onnxruntime"]
    assert why == {f"{model.name}: ncnn": "the GPU stopped"}


def test_without_a_gpu_it_says_so_before_any_work(cli, tmp_path, monkeypatch):
    def none():
        raise BackendError("no NVIDIA GPU is visible")

    monkeypatch.setattr(check, "list_gpus", none)
    ran = cli(check.main, "--out", tmp_path / "out")
    assert (ran.code, ran.err) == (1, "gpu-check: no NVIDIA GPU is visible\n")
    ran = cli(check.main, "--out", tmp_path / "out", "--only", "speed")
    assert ran.code == 2
    assert "--only speed: not one of tests, kernels, bench, parity, sanitizers" in ran.err
    ran = cli(check.main, "--out", tmp_path / "out", "--device", "tpu")
    assert (ran.code, ran.err) == (2, "gpu-check: --device tpu: not one of cuda, cpu\n")
    assert not (tmp_path / "out").exists()


def test_the_environment_says_none_where_nothing_can_be_told(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("SALEMA_COMMIT", raising=False)
    found = describe_environment()
    assert found["nvidia_smi"] is None
    assert found["commit"] is None
    monkeypatch.setenv("SALEMA_COMMIT", "abc1234")  # where the sources are a copy without .git
    assert describe_environment()["commit"] == "abc1234"
    assert found["versions"]["salema"]
    assert found["versions"]["onnxruntime-gpu"] is None
    assert json.loads(json.dumps(found)) == found


@pytest.mark.gpu
def test_pytorch_as_a_cuda_graph_gives_what_eager_gives(model):
    import torch

    from salema.benchmarks.peers.torch_peers import TorchGraphStream

    if not torch.cuda.is_available():
        pytest.skip(f"this PyTorch {torch.__version__} has no CUDA here")
    checkpoint = load_checkpoint("seeded:16")
    architecture, _ = choose_architecture("salema", checkpoint.hint, "auto", (), None)
    with open_session(model, "onnxruntime", "cpu") as session:
        arguments = architecture, checkpoint.weights, session.spec, TorchOptions(), "cuda"
    eager, graph = TorchStream(*arguments), TorchGraphStream(*arguments)
    graph.record()
    for frame in moving_disc(6, 64, 96):
        np.testing.assert_allclose(graph.infer(frame[None]), eager.infer(frame[None]), atol=1e-5)
