"""One body for every backend and variant: what a session must do, each with its own tolerance."""

import numpy as np
import pytest
from host_device import HostDevice, QueuedLauncher, open_host

from salema.export.engine.to_engine import build_chosen
from salema.export.options import EngineOptions
from salema.export.weights.seeded import moving_disc
from salema.runtime.backends.opening import open_session
from salema.runtime.errors import UsageError
from salema.runtime.gpu.device_session import DeviceSession
from salema.runtime.gpu.trt_library import KINDS
from salema.runtime.gpu.trt_session import open_tensorrt
from salema.runtime.model_folder import look_up
from salema.runtime.stream import SaliencyStream

VARIANTS = {
    "SalGAN": {"arch": "salgan"},
    "SalEMA30": {},
    "SalEMA30R fp16": {"residual": True, "precision": "fp16"},
    "SalEMA30+54": {"ema_locs": (30, 54)},
    "SalEMA61": {"ema_locs": (61,)},
    "SalCLSTM30": {"arch": "salclstm30"},
    "SalCLSTM56 fp16": {"arch": "salclstm56", "precision": "fp16"},
}
SPLITTABLE = {"SalEMA30", "SalEMA30R fp16"}
STATEFUL = [name for name in VARIANTS if name != "SalGAN"]


def on_host(*, integrated=False, **options):
    def open_folder(folder):
        device = HostDevice(integrated=integrated)
        return DeviceSession(open_host(folder, device), device, QueuedLauncher(device), "host", **options)

    return open_folder


def on_tensorrt(backend, **options):
    def open_folder(folder):
        kind = KINDS[backend]
        if not any((folder / kind.engine_name(part)).is_file() for part in ("model", "encoder")):
            build_chosen(folder, backend, EngineOptions(), print)
        return open_tensorrt(look_up(folder), kind, **options)

    return open_folder


def on_gpu(backend):
    return [pytest.mark.gpu(backend), *([] if backend == "onnxruntime" else [pytest.mark.tensorrt])]


BF16 = [pytest.mark.bf16]
# In each session ONNX Runtime has cuDNN time its algorithms anew (cudnn_conv_algo_search=EXHAUSTIVE, the default), so
# two sessions may round differently (ONNX Runtime #19822).
TIMED_ANEW = ("onnxruntime cuda", "onnxruntime tensorrt")
# How to open a folder, by how much values may differ between batches, and what it needs.
SESSIONS = {
    "onnxruntime": (lambda folder: open_session(folder, "onnxruntime", "cpu"), 1e-5, []),
    "openvino": (lambda folder: open_session(folder, "openvino", "cpu"), 1e-5, []),
    "openvino, bf16": (lambda folder: open_session(folder, "openvino-bf16", "cpu"), 0.02, BF16),
    "host": (on_host(), 1e-5, []),
    "host, integrated": (on_host(integrated=True), 1e-5, []),
    "host, no graphs": (on_host(graphs=False), 1e-5, []),
    "host, copy": (on_host(state_scheme="copy"), 1e-5, []),
    "ncnn": (lambda folder: open_session(folder, "ncnn", "cpu"), 1e-5, []),
    "onnxruntime, split": (lambda folder: open_session(folder, "onnxruntime", "cpu"), 1e-5, []),
    "host, split": (on_host(), 1e-5, []),
    "tensorrt, split": (on_tensorrt("tensorrt"), 1e-4, on_gpu("tensorrt")),
    "onnxruntime cuda": (lambda folder: open_session(folder, "onnxruntime", "cuda"), 1e-4, on_gpu("onnxruntime")),
    "onnxruntime tensorrt": (
        lambda folder: open_session(folder, "onnxruntime-tensorrt"),
        1e-4,
        on_gpu("onnxruntime-tensorrt"),
    ),
    "tensorrt": (on_tensorrt("tensorrt"), 1e-4, on_gpu("tensorrt")),
    "tensorrt, no graphs": (on_tensorrt("tensorrt", graphs=False), 1e-4, on_gpu("tensorrt")),
    "tensorrt, copy": (on_tensorrt("tensorrt", state_scheme="copy"), 1e-4, on_gpu("tensorrt")),
    "tensorrt-rtx": (on_tensorrt("tensorrt-rtx"), 1e-4, on_gpu("tensorrt-rtx")),
}


@pytest.fixture(params=[pytest.param(value, id=name, marks=value[2]) for name, value in SESSIONS.items()])
def backend(request):
    return request.param


@pytest.fixture
def between_sessions(request, backend):
    """By how much the maps of two sessions may differ: not at all, but where each times its algorithms anew."""
    name = request.node.callspec.id
    if not any(known in name for known in TIMED_ANEW):
        return 0
    return 2e-3 if "fp16" in name else backend[1]


@pytest.fixture
def folder(request, exported):
    """Exports a variant as the backend needs it."""
    name = request.node.callspec.id

    def export(variant="SalEMA30", streams=1):
        options = {**VARIANTS[variant]}
        if streams > 1:
            options["batch"] = None
        if "split" in name and variant in SPLITTABLE:
            options["split"] = True
        return exported(**options)

    return export


@pytest.fixture
def opened(folder, backend):
    def open_variant(variant, streams=1):
        return SaliencyStream(backend[0](folder(variant, streams)), streams)

    return open_variant


def run(stream, frames):
    return np.stack([stream.step(frame) for frame in frames])


@pytest.mark.parametrize("variant", VARIANTS)
def test_reset_equals_fresh(opened, disc, between_sessions, variant):
    with opened(variant) as stream, opened(variant) as other:
        fresh = run(stream, disc)
        assert fresh.shape == (4, 64, 96)
        assert fresh.dtype == np.float32
        assert fresh.min() >= 0
        assert fresh.max() <= 1
        carried = run(stream, disc)
        stream.reset()
        np.testing.assert_array_equal(run(stream, disc), fresh)
        np.testing.assert_allclose(run(other, disc), fresh, rtol=0, atol=between_sessions)
        if variant == "SalGAN":
            np.testing.assert_array_equal(carried, fresh)
        else:
            assert np.abs(carried[0] - fresh[0]).max() > 1e-4


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_halves_with_the_state_carried_equal_the_whole(opened, disc, between_sessions, variant):
    with opened(variant) as stream, opened(variant) as second:
        whole = run(stream, disc)
        stream.reset()
        first_half = run(stream, disc[:2])
        second.restore(stream.snapshot())
        halves = np.concatenate([first_half, run(second, disc[2:])])
        np.testing.assert_allclose(halves, whole, rtol=0, atol=between_sessions)


@pytest.mark.parametrize("variant", VARIANTS)
def test_streams_in_a_batch_equal_runs_alone(opened, backend, variant):
    frames = moving_disc(8, 64, 96)
    videos = np.stack([frames[:4], frames[4:], frames[:4, ::-1]], 1)
    with opened(variant, streams=3) as together:
        maps = np.stack([together.step_batch(list(row)) for row in videos])
    tolerance = max(backend[1], 2e-3 if "fp16" in variant else 0)
    with opened(variant) as alone:
        for index in range(3):
            alone.reset()
            np.testing.assert_allclose(maps[:, index], run(alone, videos[:, index]), atol=tolerance)


@pytest.mark.parametrize("variant", STATEFUL)
def test_one_stream_of_a_batch_starts_anew_alone(opened, variant):
    frames = moving_disc(6, 64, 96)
    with opened(variant, streams=2) as stream:
        untouched = np.stack([stream.step_batch([frame, frame]) for frame in frames])
        stream.reset()
        for frame in frames[:3]:
            stream.step_batch([frame, frame])
        stream.reset(1)
        maps = np.stack([stream.step_batch([frame, frame]) for frame in frames[3:]])
        stream.reset()
        fresh = np.stack([stream.step_batch([frame, frame]) for frame in frames[3:]])
    np.testing.assert_array_equal(maps[:, 0], untouched[3:, 0])
    np.testing.assert_array_equal(maps[:, 1], fresh[:, 1])
    assert np.abs(maps[:, 0] - maps[:, 1]).max() > 1e-4


@pytest.mark.parametrize("variant", [name for name in STATEFUL if "EMA" in name])
def test_a_reset_clears_nan(opened, disc, variant):
    with opened(variant) as stream:
        expected = run(stream, disc)
        poison = stream.snapshot()
        for name in set(poison) - {"first"}:
            poison[name][:] = np.nan
        stream.restore(poison)
        stream.step(disc[0])  # whose map need not show it: the ReLU of some backends gives 0 for NaN
        poisoned = stream.snapshot()
        assert all(np.isnan(poisoned[state.name]).all() for state in stream.spec.states)
        stream.restore(poison | {"first": np.ones(1, np.float32)})
        np.testing.assert_array_equal(run(stream, disc), expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_leaves_its_arguments_alone(opened, disc, backend, variant):
    with opened(variant) as stream:
        run(stream, disc[:2])
        before = stream.snapshot()
        mapped = stream.step(disc[2])
        kept = mapped.copy()
        run(stream, disc)
        np.testing.assert_array_equal(mapped, kept)
        stream.restore(before)
        np.testing.assert_array_equal(stream.step(disc[2]), kept)


def test_from_host_keeps_a_copy_of_its_own(folder, backend):
    with backend[0](folder()) as session:
        array = np.ones((1, 32, 4, 6), np.float32)
        states = session.from_host({"ema30": array})
        array[:] = 7
        assert (session.to_host(states)["ema30"] == 1).all()


def test_a_closed_session_says_so(folder, backend, disc):
    session = backend[0](folder())
    stream = SaliencyStream(session)
    stream.step(disc[0])
    stream.close()
    stream.close()
    with pytest.raises(UsageError, match="the model is closed; load it again"):
        session.step(disc[:1], (), np.ones(1, np.float32))
