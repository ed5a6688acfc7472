"""The script of `make gpu-check`, tried on the CPU: only the device is another."""

import json
from pathlib import Path

import numpy as np
import pytest

from salema.benchmarks.gpu.cases import openers
from salema.benchmarks.gpu.check import GPU_TESTS, main
from salema.benchmarks.gpu.parity import compare_with_torch
from salema.benchmarks.machine.environment import describe_environment
from salema.benchmarks.peers.torch_peers import TorchOptions, TorchStream
from salema.benchmarks.speed.records import read_records
from salema.export.weights.architecture import choose_architecture
from salema.export.weights.checkpoints import load_checkpoint
from salema.export.weights.seeded import moving_disc
from salema.runtime.backends.opening import open_session
from salema.runtime.gpu.trt_library import KINDS


@pytest.fixture(scope="module")
def truth(model):
    checkpoint = load_checkpoint("seeded:16")
    architecture, _ = choose_architecture("salema", checkpoint.hint, "auto", (), None)
    with open_session(model, "onnxruntime", "cpu") as session:
        return TorchStream(architecture, checkpoint.weights, session.spec, TorchOptions(), "cpu")


def test_the_whole_script_leaves_its_results_as_json(cli, tmp_path):
    ran = cli(
        main,
        *("--out", tmp_path / "out", "--weights", "seeded:16", "--device", "cpu", "--no-tests", "--no-sanitizers"),
        *("--imgsz", 64, 96, "--frames", 6, "--rounds", 2, "--seconds", 0.1),
    )
    assert ran.code == 0, ran.err
    record = json.loads((tmp_path / "out/gpu-check.json").read_text())
    assert record["environment"]["versions"]["torch"]
    for precision, most in (("fp32", 1e-5), ("fp16", 3e-3)):
        found = record[precision]
        assert found["parity"]["onnxruntime cpu"]["frames"] == 6
        assert 0 < found["parity"]["onnxruntime cpu"]["map_max"] < most
        assert found["speed"]["onnxruntime cpu"]["ratio"] == 1
        assert found["speed"]["onnxruntime cpu, split"]["median_ms"] > 0
        assert 0 < found["parity"]["onnxruntime cpu, split"]["map_max"] < most
    models = ("fp32", "fp16", "fp32-split", "fp16-split")
    assert record["bench"] == ["pytorch", *(f"{model}: auto" for model in models)]
    assert [line["case"] for line in read_records(tmp_path / "out/bench.jsonl")] == record["bench"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_every_file_with_gpu_tests_is_run():
    root = Path(__file__).parents[3]
    marked = {str(path.relative_to(root)) for path in root.glob("tests/**/test_*.py") if "mark.gpu" in path.read_text()}
    assert marked == set(GPU_TESTS)


def test_parity_counts_maps_and_states_over_all_frames(model, truth):
    with open_session(model, "onnxruntime", "cpu") as session:
        found = compare_with_torch(session, truth, moving_disc(40, 64, 96))
    assert found.frames == 40
    assert found.map_max < 1e-5
    assert found.state_error < 1e-5
    assert found.cc > 0.99999
    assert found.map_mean < found.map_max


def test_parity_can_fail(exported, truth):
    """A model with another coefficient is told apart, by maps and by states."""
    with open_session(exported(alpha=0.3), "onnxruntime", "cpu") as session:
        found = compare_with_torch(session, truth, moving_disc(10, 64, 96))
    assert found.map_max > 1e-3
    assert found.state_error > 1e-2
    assert found.state_error_last <= found.state_error


def test_pytorch_starts_anew_on_a_reset(truth):
    frames = moving_disc(3, 64, 96)
    truth.reset()
    first = [truth.infer(frame[None]) for frame in frames]
    carried = truth.infer(frames[:1])
    truth.reset()
    np.testing.assert_array_equal([truth.infer(frame[None]) for frame in frames], first)
    assert np.abs(carried - first[0]).max() > 1e-3


def test_on_a_gpu_every_backend_is_tried_with_graphs_on_and_off_and_both_state_schemes(tmp_path):
    names = list(openers(tmp_path, tmp_path, "cuda", print))
    assert len(names) == 2 + 5 * len(KINDS)
    assert names[0] == "onnxruntime cuda"
    for kind in KINDS:
        for how in ("graphs, split", "graphs, ping-pong", "graphs, copy", "no graphs, ping-pong", "no graphs, copy"):
            assert f"{kind}, {how}" in names


def test_without_a_gpu_it_says_so_before_any_work(tmp_path, monkeypatch):
    import os
    import subprocess
    import sys

    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "salema.benchmarks.gpu.check", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("gpu-check: no NVIDIA ")
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
    from salema.benchmarks.peers.torch_peers import TorchGraphStream

    checkpoint = load_checkpoint("seeded:16")
    architecture, _ = choose_architecture("salema", checkpoint.hint, "auto", (), None)
    with open_session(model, "onnxruntime", "cpu") as session:
        arguments = architecture, checkpoint.weights, session.spec, TorchOptions(), "cuda"
    eager, graph = TorchStream(*arguments), TorchGraphStream(*arguments)
    graph.record()
    for frame in moving_disc(6, 64, 96):
        np.testing.assert_allclose(graph.infer(frame[None]), eager.infer(frame[None]), atol=1e-5)
