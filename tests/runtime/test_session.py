"""One body for every backend and variant: what a session must do, each with its own tolerance."""

import json

import numpy as np
import onnx
import pytest

from salema.export.seeded import moving_disc
from salema.runtime import load
from salema.runtime.errors import BackendError, ModelError, UsageError
from salema.runtime.session import open_session

VARIANTS = {
    "SalGAN": {"arch": "salgan"},
    "SalEMA30": {},
    "SalEMA30R fp16": {"residual": True, "precision": "fp16"},
    "SalEMA30+54": {"ema_locs": (30, 54)},
    "SalEMA61": {"ema_locs": (61,)},
    "SalCLSTM30": {"arch": "salclstm30"},
    "SalCLSTM56 fp16": {"arch": "salclstm56", "precision": "fp16"},
}
SESSIONS = {"onnxruntime": {"backend": "onnxruntime", "device": "cpu", "atol": 1e-6}}
STATEFUL = [name for name in VARIANTS if name != "SalGAN"]


@pytest.fixture(params=SESSIONS)
def backend(request):
    return SESSIONS[request.param]


@pytest.fixture
def opened(exported, backend):
    def open_variant(variant, streams=1):
        batch = 1 if streams == 1 else None
        folder = exported(batch=batch, **VARIANTS[variant])
        return load(folder, backend=backend["backend"], device=backend["device"], streams=streams)

    return open_variant


def run(stream, frames):
    return np.stack([stream.step(frame) for frame in frames])


@pytest.mark.parametrize("variant", VARIANTS)
def test_reset_equals_fresh(opened, disc, variant):
    with opened(variant) as stream, opened(variant) as other:
        fresh = run(stream, disc)
        assert fresh.shape == (4, 64, 96)
        assert fresh.dtype == np.float32
        assert fresh.min() >= 0
        assert fresh.max() <= 1
        carried = run(stream, disc)
        stream.reset()
        np.testing.assert_array_equal(run(stream, disc), fresh)
        np.testing.assert_array_equal(run(other, disc), fresh)
        if variant == "SalGAN":
            np.testing.assert_array_equal(carried, fresh)
        else:
            assert np.abs(carried[0] - fresh[0]).max() > 1e-4


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_halves_with_the_state_carried_equal_the_whole(opened, disc, variant):
    with opened(variant) as stream, opened(variant) as second:
        whole = run(stream, disc)
        stream.reset()
        first_half = run(stream, disc[:2])
        second.restore(stream.snapshot())
        np.testing.assert_array_equal(np.concatenate([first_half, run(second, disc[2:])]), whole)


@pytest.mark.parametrize("variant", VARIANTS)
def test_streams_in_a_batch_equal_runs_alone(opened, backend, variant):
    frames = moving_disc(8, 64, 96)
    videos = np.stack([frames[:4], frames[4:], frames[:4, ::-1]], 1)
    with opened(variant, streams=3) as together:
        maps = np.stack([together.step_batch(list(row)) for row in videos])
    tolerance = 2e-3 if "fp16" in variant else 10 * backend["atol"]
    for index in range(3):
        with opened(variant) as alone:
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
        assert np.isnan(stream.step(disc[0])).any()
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


def test_states_are_handles_that_are_not_copied_to_the_host(model, disc):
    """Each step's output OrtValue is the next step's input, and the host sees it only on demand."""
    with open_session(model) as session:
        states = session.from_host({"ema30": np.zeros((1, 32, 4, 6), np.float32)})
        mix = np.ones(1, np.float32)
        for frame in disc:
            maps, after = session.step(frame[None], states, mix)
            assert type(after[0]).__name__ == "OrtValue"
            assert after[0].data_ptr() != states[0].data_ptr()
            states, mix = after, np.full(1, 0.1, np.float32)
        assert maps.shape == (1, 64, 96)
        assert session.to_host(states)["ema30"].shape == (1, 32, 4, 6)


def test_from_host_keeps_a_copy_of_its_own(model):
    with open_session(model) as session:
        array = np.ones((1, 32, 4, 6), np.float32)
        states = session.from_host({"ema30": array})
        array[:] = 7
        assert (session.to_host(states)["ema30"] == 1).all()


@pytest.mark.parametrize(("option", "value"), [("backend", "tensorflow"), ("device", "tpu")])
def test_unknown_backends_and_devices(model, option, value):
    with pytest.raises(UsageError, match=f"--{option} {value}: not one of auto"):
        open_session(model, **{option: value})


def test_cuda_that_is_not_there_is_an_error_and_auto_says_what_it_took(model):
    import onnxruntime as ort

    if "CUDAExecutionProvider" in ort.get_available_providers():
        with open_session(model) as session:
            assert "auto: CUDA" in session.description
        return
    with pytest.raises(BackendError, match=r"pip install 'salema\[gpu\]'"):
        open_session(model, device="cuda")
    with open_session(model) as session:
        assert session.description.endswith("on cpu (auto: no CUDA provider installed)")


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
        (lambda proto: proto.metadata_props.pop(), "not one that salema-export wrote"),
        (set_record(spec_version=2, salema_version="9.1"), r"written by salema 9\.1 in model format 2.*pip install -U"),
        (set_record(colour="red"), r"lacks or has unknown entries \(colour\)"),
        (set_record(spec_version="new"), "metadata can't be read"),
        (lambda proto: setattr(proto.metadata_props[0], "value", "{"), "metadata can't be read"),
        (set_record(states="x"), "metadata is damaged"),
        (set_record(states=[{}]), "metadata is damaged"),
        (set_record(rewrites=None), "metadata is damaged"),
        (set_record(coefficient=7), r"the coefficient must lie in \(0, 1\]"),
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


def test_missing_models(tmp_path):
    with pytest.raises(ModelError, match=r"no such model; make one with: salema-export --weights FILE -o .*absent"):
        open_session(tmp_path / "absent")
    with pytest.raises(ModelError, match="no such model"):
        open_session(tmp_path)
