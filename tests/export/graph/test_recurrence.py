"""The published recurrence inside the encoder, in every form that is exported and on every way to run it."""

import numpy as np
import onnx
import pytest
from host_device import HostDevice, QueuedLauncher, open_host
from reference import salema

from salema.export.cli import main
from salema.export.int8.quantize import SCHEMES, layers_of, quantize
from salema.export.weights.checkpoints import load_checkpoint
from salema.export.weights.seeded import moving_disc
from salema.runtime.backends.opening import open_session
from salema.runtime.gpu.device_session import DeviceSession
from salema.runtime.onnx_metadata import read_spec
from salema.runtime.stream import SaliencyStream

VARIANTS = {
    "7": {"ema_locs": (7,)},
    "7, plain": {"ema_locs": (7,), "plain_recurrence": True},
    "0": {"ema_locs": (0,)},
    "28": {"ema_locs": (28,)},
    "8": {"ema_locs": (8,)},
    "1R": {"ema_locs": (1,), "residual": True},
    "29R": {"ema_locs": (29,), "residual": True},
    "29R, plain": {"ema_locs": (29,), "residual": True, "plain_recurrence": True},
    "7R": {"ema_locs": (7,), "residual": True},
    "7 and 54": {"ema_locs": (7, 54)},
    "7 and 8": {"ema_locs": (7, 8)},
}


def on_host(folder):
    device = HostDevice()
    return DeviceSession(open_host(folder, device), device, QueuedLauncher(device), "host")


def on_cpu(backend):
    return lambda folder: open_session(folder, backend, "cpu")


FEW = ("7", "29R")
# How it is exported, how it is run, how far maps and (relative to their size) states may be from float64, and which.
WAYS = {
    "onnx": ({}, on_cpu("onnxruntime"), 1e-5, VARIANTS),
    "openvino": ({}, on_cpu("openvino"), 1e-5, VARIANTS),
    "fp16": ({"precision": "fp16"}, on_cpu("onnxruntime"), 3e-3, ("7",)),
    "rewritten": ({"for_": "onnxruntime"}, on_cpu("onnxruntime"), 1e-5, ("7 and 54",)),
    "ncnn": ({"for_": "ncnn"}, on_cpu("ncnn"), 1e-5, (*FEW, "7 and 8")),
    "split": ({"split": True}, on_cpu("onnxruntime"), 1e-5, (*FEW, "7, plain")),
    "split, fp16": ({"split": True, "precision": "fp16"}, on_cpu("onnxruntime"), 3e-3, ("7",)),
    "split, the kernel": ({"split": True}, on_host, 1e-5, (*FEW, "7, plain")),
}
CASES = [(way, name) for way in WAYS for name in WAYS[way][-1]]


@pytest.fixture(scope="module")
def frames():
    return moving_disc(4, 64, 96)


@pytest.fixture(scope="module")
def expected(frames):
    """Maps and last states by variant, from the recurrence written out plainly."""
    weights, done = load_checkpoint("seeded:16").weights, {}

    def make(name):
        if name not in done:
            options = VARIANTS[name]
            in_place = not options.get("plain_recurrence", False)
            residual = options.get("residual", False)
            done[name] = salema(weights, frames, 0.1, options["ema_locs"], residual, in_place)
        return done[name]

    return make


@pytest.mark.parametrize(("way", "name"), CASES)
def test_every_way_follows_the_published_code(exported, expected, frames, way, name):
    options, open_folder, tolerance, _ = WAYS[way]
    maps, states = expected(name)
    folder = exported(**VARIANTS[name], **options)
    with SaliencyStream(open_folder(folder)) as stream:
        np.testing.assert_allclose([stream.step(frame) for frame in frames], maps, atol=tolerance)
        snapshot = stream.snapshot()
        assert stream.spec.plain_recurrence == ("plain" in name)
    for location, state in zip(VARIANTS[name]["ema_locs"], states, strict=True):
        np.testing.assert_allclose(snapshot[f"ema{location}"], state, atol=tolerance * np.abs(state).max())


def test_the_two_rules_give_other_maps(expected):
    for name in ("7", "29R"):
        assert np.abs(expected(name)[0] - expected(f"{name}, plain")[0]).max() > 1e-3


def test_int8_leaves_the_state_in_float(exported, frames, tmp_path):
    proto = onnx.load(exported(**VARIANTS["7 and 54"], for_="onnxruntime") / "model.onnx")
    ranges = dict.fromkeys(layers_of(proto), (-3.0, 3.0)) | {"salgan.0": (-124.0, 152.0)}
    onnx.save(quantize(proto, ranges, SCHEMES["onnxruntime"]), tmp_path / "model.onnx")
    with SaliencyStream(open_session(tmp_path, "onnxruntime", "cpu")) as stream:
        for frame in frames:
            stream.step(frame)
        for state in stream.spec.states:
            values = stream.snapshot()[state.name]
            assert len(np.unique(values[values > 0])) > 1000  # INT8 would leave 127 or 255


@pytest.mark.parametrize(("name", "split"), [("7", False), ("28", False), ("7R", True)])
@pytest.mark.parametrize("target", [target for target in SCHEMES if target != "ncnn"])
def test_int8_rounds_no_state_on_its_way_out(exported, target, name, split):
    folder = exported(**VARIANTS[name], split=split)
    for path in folder.glob("*.onnx"):
        proto = onnx.load(path)
        graph = quantize(proto, dict.fromkeys(layers_of(proto), (-3.0, 3.0)), SCHEMES[target]).graph
        makers = {output: node for node in graph.node for output in node.output}
        assert sum(node.op_type == "DequantizeLinear" for node in graph.node) > len(layers_of(proto))
        for output in graph.output:
            maker = makers[output.name]
            while maker.op_type == "Identity":
                maker = makers[maker.input[0]]
            assert maker.op_type != "DequantizeLinear", (path.name, output.name)


@pytest.mark.parametrize(
    ("arguments", "said", "plain"),
    [
        (("--ema-loc", 7), "recurrence        the published code's: the state at 7 is kept after the ReLU\n", False),
        (("--ema-loc", 7, "--plain-recurrence"), "recurrence        plain, not the published code's\n", True),
        ((), None, False),
    ],
)
def test_the_command_says_which_rule_it_follows(cli, tmp_path, arguments, said, plain):
    ran = cli(main, "--weights", "seeded:16", "--imgsz", 64, 96, "--engine", "none", "-o", tmp_path / "m", *arguments)
    assert ran.code == 0
    assert said in ran.out if said else "recurrence" not in ran.out
    assert read_spec(tmp_path / "m/model.onnx").plain_recurrence is plain


@pytest.mark.parametrize("arch", ["salgan", "salclstm30"])
def test_networks_without_an_average_have_no_plain_rule(cli, tmp_path, arch):
    arguments = ("--weights", "seeded:16", "--arch", arch, "--plain-recurrence", "-o", tmp_path / "m")
    ran = cli(main, *arguments)
    assert (ran.code, "--plain-recurrence is for SalEMA, which has an average" in ran.err) == (2, True)
    assert not (tmp_path / "m").exists()
