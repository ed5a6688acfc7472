"""A split model (encoder, our EMA kernel on the CPU, decoder) against the whole step."""

import json
import re

import numpy as np
import onnx
import pytest
from host_device import HostDevice, QueuedLauncher, open_host

from salema.export.cli import main
from salema.export.weights.seeded import moving_disc
from salema.runtime.backends.opening import open_session
from salema.runtime.errors import ModelError, UsageError
from salema.runtime.gpu.device_session import DeviceSession
from salema.runtime.gpu.trt_library import TENSORRT_RTX
from salema.runtime.model_folder import look_up
from salema.runtime.onnx_metadata import read_spec
from salema.runtime.stream import SaliencyStream

VARIANTS = {
    "SalEMA30": {},
    "SalEMA30R": {"residual": True},
    "SalEMA0": {"ema_locs": (0,)},
    "SalEMA29, no ReLU follows": {"ema_locs": (29,)},
    "SalEMA60, the sigmoid follows": {"ema_locs": (60,)},
    "fp16": {"precision": "fp16"},
    "R fp16": {"precision": "fp16", "residual": True},
}


def on_host(folder, **options):
    device = HostDevice()
    return DeviceSession(open_host(folder, device), device, QueuedLauncher(device), "host", **options)


def walk(session, frames):
    with session:
        stream, steps = SaliencyStream(session), []
        for index, frame in enumerate(frames):
            if index == 5:
                stream.reset()
            steps.append((stream.step(frame), stream.snapshot()))
        return steps


def compare(found, expected, atol):
    for (saliency, states), (expected_map, expected_states) in zip(found, expected, strict=True):
        np.testing.assert_allclose(saliency, expected_map, atol=atol)
        for name, value in expected_states.items():
            np.testing.assert_allclose(states[name], value, atol=10 * atol, rtol=10 * atol)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_split_model_is_the_whole_one(exported, variant):
    options = VARIANTS[variant]
    frames = moving_disc(10, 64, 96)
    whole = walk(open_session(exported(**options), "onnxruntime", "cpu"), frames)
    parts = exported(split=True, **options)
    on_cpu = walk(open_session(parts, "onnxruntime", "cpu"), frames)
    compare(on_cpu, whole, 1e-5 if "fp16" not in variant else 3e-3)
    compare(walk(on_host(parts), frames), on_cpu, 0)
    compare(walk(on_host(parts, graphs=False), frames), on_cpu, 0)


def test_the_state_stays_where_it_is_and_there_is_one_graph(exported, disc):
    with on_host(exported(split=True)) as session, SaliencyStream(session) as stream:
        assert session.description == "host, CUDA graphs, in-place states"
        before = len(session._device.pieces)
        for frame in disc:
            stream.step(frame)
        assert len(session._graphs) == 1
        assert session._device.launches == 3
        held = len(session._device.pieces)
        for frame in disc:
            stream.step(frame)
        assert len(session._device.pieces) == held > before
        old = session.from_host({"ema30": np.ones((1, 32, 4, 6), np.float32)})
        mix = np.full(1, 0.1, np.float32)
        _, first = session.step(disc[:1], old, mix)
        session.step(disc[:1], first, mix)
        with pytest.raises(UsageError, match="keeps the states of the last step only"):
            session.step(disc[:1], first, mix)
        assert (session.to_host(old)["ema30"] == 1).all()


@pytest.mark.tensorrt
def test_the_files_of_a_split_model(exported, cli, tmp_path):
    network = ("--weights", "seeded:16", "--imgsz", 64, 96, "--residual", "--fp16")
    engine = ("--engine", "tensorrt-rtx", "--target", "sm89")
    ran = cli(main, *network, "--split", "-o", tmp_path / "m", *engine, "--json")
    assert ran.code == 0, ran.err
    record = json.loads(ran.out)
    assert [path.name for path in sorted((tmp_path / "m").iterdir())] == [
        f"{part}{end}" for part in ("decoder", "encoder") for end in (".onnx", ".rtx.engine", ".rtx.engine.json")
    ]
    assert [engine["spec"]["part"] for engine in record["engines"]] == ["encoder", "decoder"]
    assert sum(engine["convolutions"] for engine in record["engines"]) == 27
    encoder, decoder = map(read_spec, look_up(tmp_path / "m").onnx_files())
    assert encoder.tensor_shapes == {"frame": (1, 64, 96, 3), "fresh": (1, 32, 4, 6), "entered": (1, 32, 4, 6)}
    assert [encoder.tensor_dtype(name) for name in encoder.tensor_shapes] == ["uint8", "float16", "float16"]
    assert decoder.tensor_shapes == {"averaged": (1, 32, 4, 6), "saliency": (1, 1, 64, 96)}
    assert encoder.whole == decoder.whole
    assert [path.name for path in look_up(tmp_path / "m").engines(TENSORRT_RTX)] == [
        "encoder.rtx.engine",
        "decoder.rtx.engine",
    ]
    assert look_up(tmp_path / "m/decoder.rtx.engine").engines(TENSORRT_RTX) == look_up(tmp_path / "m").engines(
        TENSORRT_RTX
    )


@pytest.mark.parametrize(
    "options", [("--arch", "salgan"), ("--ema-loc", 61), ("--ema-loc", 30, "--ema-loc", 54), ("--arch", "salclstm30")]
)
def test_variants_that_cannot_be_taken_apart(cli, tmp_path, options):
    ran = cli(main, "--weights", "seeded:16", "--imgsz", 32, 32, "--split", *options, "-o", tmp_path / "m")
    assert ran.code == 2
    assert re.search(r"--split: \S+ can't be taken apart", ran.err)
    assert not (tmp_path / "m").exists()


def test_one_folder_holds_one_form(cli, model, exported, tmp_path):
    for folder, option, name in ((model, "--split", "model"), (exported(split=True), None, "encoder")):
        ran = cli(main, "--weights", "seeded:16", "-o", folder, *filter(None, [option]))
        assert ran.code == 2
        assert re.search(rf"holds {name}\.onnx, a model exported with(out)? --split; choose another folder", ran.err)


def test_parts_that_do_not_belong_together(exported, tmp_path):
    for name, options in (("encoder.onnx", {}), ("decoder.onnx", {"alpha": 0.3})):
        (tmp_path / name).write_bytes((exported(split=True, **options) / name).read_bytes())
    with pytest.raises(ModelError, match="encoder and decoder are not of one export; export them again with --split"):
        open_session(tmp_path)
    (tmp_path / "decoder.onnx").unlink()
    with pytest.raises(ModelError, match=r"decoder\.onnx: missing, and it is half of a split model"):
        open_session(tmp_path)


def test_a_part_alone_and_other_devices_are_refused(exported, tmp_path):
    parts = exported(split=True)
    (tmp_path / "model.onnx").write_bytes((parts / "encoder.onnx").read_bytes())
    with pytest.raises(ModelError, match=r"model\.onnx: the encoder of a split model; name its folder"):
        open_session(tmp_path)
    for backend, device in (("onnxruntime", "cuda"), ("onnxruntime-tensorrt", "auto")):
        with pytest.raises(UsageError, match="runs split models on the CPU only; build their engines"):
            open_session(parts, backend, device)
    with open_session(parts / "encoder.onnx") as session:
        assert session.spec.part == "model"


def test_the_parts_have_the_types_of_their_records(exported):
    for precision, kind in (("fp32", onnx.TensorProto.FLOAT), ("fp16", onnx.TensorProto.FLOAT16)):
        folder = exported(split=True, precision=precision)
        graph = onnx.load(folder / "decoder.onnx").graph
        assert graph.input[0].type.tensor_type.elem_type == kind
        assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
