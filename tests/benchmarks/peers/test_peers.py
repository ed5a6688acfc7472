"""Peers are the same network, so they give the same maps."""

import numpy as np
import pytest

from salema.benchmarks.machine.rates import measure_rates
from salema.benchmarks.peers.network import load_network
from salema.benchmarks.peers.peers import ON_GPU_ONLY, PEERS, open_peer
from salema.benchmarks.speed.quality import compare_maps, run_maps
from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.errors import BackendError, CheckpointError, UsageError

TOLERANCE = {"fp32": 1e-5, "fp16": 3e-3, "bf16": 2e-2}  # OpenVINO takes float16 on Arm, bfloat16 where it is
ON_CPU = [
    pytest.param(name, marks=pytest.mark.slow) if name == "pytorch-compile" else name
    for name in PEERS
    if name not in ON_GPU_ONLY
]


@pytest.fixture
def stream(exported):
    with load(exported(batch=None), backend="onnxruntime", device="cpu", streams=2) as opened:
        yield opened


@pytest.fixture
def one_file():
    """Has PyTorch's compiler write one C++ file for a network, without a trial of the CPU, and not optimised."""
    from torch._inductor import config

    quick = {"cpp_wrapper": True, "cpp_cache_precompile_headers": False, "cpp.vec_isa_ok": True}
    with config.patch(quick | {"aot_inductor.debug_compile": True}):
        yield


@pytest.mark.usefixtures("one_file")
@pytest.mark.parametrize("name", ON_CPU)
# PyTorch's compiler uses what PyTorch itself has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_peer_gives_our_maps_and_starts_anew(name, stream, tmp_path):
    frames = np.stack([moving_disc(4, 64, 96), moving_disc(8, 64, 96)[4:]], 1)
    expected = [stream.infer(pair) for pair in frames]
    peer, precision = open_peer(name, load_network(stream.spec, None), 2, "cpu", tmp_path)
    for _ in range(2):
        peer.reset()
        found = [peer.infer(pair) for pair in frames]
        assert np.abs(np.stack(found) - expected).max() < TOLERANCE[precision]
    peer.close()


@pytest.mark.parametrize("name", ON_GPU_ONLY)
def test_peers_that_need_a_gpu_are_refused_on_the_cpu(name, stream, tmp_path):
    with pytest.raises(UsageError, match=f"--compare {name}: runs on NVIDIA GPUs only"):
        open_peer(name, load_network(stream.spec, None), 1, "cpu", tmp_path)


@pytest.mark.parametrize("options", [{"arch": "salgan"}, {"ema_locs": (30, 54)}, {"ema_locs": (30,), "residual": True}])
def test_peers_know_every_variant(exported, options, tmp_path):
    with load(exported(**options), backend="onnxruntime", device="cpu") as stream:
        frames = moving_disc(3, 64, 96)
        network = load_network(stream.spec, None)
        for name in ("pytorch", "onnxruntime"):
            peer, _ = open_peer(name, network, 1, "cpu", tmp_path)
            stream.reset()
            assert np.abs(run_maps(peer, frames, 1) - run_maps(stream, frames, 1)).max() < 1e-5


def test_another_checkpoint_is_refused(stream):
    with pytest.raises(
        UsageError, match="--weights seeded:8: SHA-256 [0-9a-f]{12}..., and the model was exported from"
    ):
        load_network(stream.spec, "seeded:8")
    with pytest.raises(CheckpointError, match="no such file"):
        load_network(stream.spec, "nothing.pt")


def test_trained_weights_must_be_named(stream):
    from dataclasses import replace

    with pytest.raises(UsageError, match="give it with --weights FILE"):
        load_network(replace(stream.spec, trained=True), None)


def test_quality_is_the_worst_frames():
    rng = np.random.default_rng(0)
    expected = rng.random((3, 8, 8), np.float32)
    found = expected.copy()
    found[1] = expected[1][::-1]
    quality = compare_maps(found, expected, "truth")
    assert quality.cc == pytest.approx(np.corrcoef(found[1].ravel(), expected[1].ravel())[0, 1], abs=1e-6)
    assert quality.map_max == np.abs(found - expected).max()
    assert quality.sim < 0.9
    assert compare_maps(expected, expected, "truth").cc == pytest.approx(1)


def test_rates_are_those_of_this_machine(monkeypatch):
    monkeypatch.setattr("salema.benchmarks.machine.rates._CPU_SIZE", 1024)
    rates = measure_rates("cpu", {"fp32"})
    assert 1e9 < rates.product_operations_per_s["fp32"] < 1e14
    assert 1e8 < rates.bytes_per_s < 1e13
    assert rates.size == 1024


def test_a_product_that_is_emulated_is_no_rate(monkeypatch):
    import time

    import torch

    monkeypatch.setattr(torch, "_int_mm", lambda a, b: time.sleep(0.05))
    assert set(measure_rates("cpu", {"fp32", "int8"}).product_operations_per_s) == {"fp32"}


def test_without_pytorch_numpy_measures(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    rates = measure_rates("cpu", {"fp32", "int8"})
    assert set(rates.product_operations_per_s) == {"fp32"}
    assert rates.how == "NumPy"


def test_pytorch_without_cuda_is_told_in_one_sentence(stream, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match=r"--compare pytorch: this PyTorch .* has no CUDA here; give --device cpu"):
        open_peer("pytorch", load_network(stream.spec, None), 1, "cuda:0", tmp_path)
