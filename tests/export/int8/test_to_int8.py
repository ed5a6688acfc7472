"""INT8, for real: narrow networks calibrated on a clip, run on ONNX Runtime and OpenVINO, built by TensorRT-RTX."""

import itertools
import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from int8_model import SIZE_HW, WEIGHTS
from onnx import TensorProto, numpy_helper

from salema.export.cli import main
from salema.export.engine.to_engine import build_engine
from salema.export.exporter import export_model
from salema.export.int8.footage import gather
from salema.export.int8.forms import form_for
from salema.export.int8.gate import there_and_back
from salema.export.int8.quantize import SCHEMES, feeds, layers_of, quantize
from salema.export.int8.to_int8 import Trials
from salema.export.options import EngineOptions, ExportOptions
from salema.export.weights.checkpoints import load_checkpoint
from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.backends.openvino_session import ov
from salema.runtime.backends.ort_session import OrtSession
from salema.runtime.errors import BackendError, VerificationError
from salema.runtime.gpu.trt_library import TENSORRT_RTX
from salema.runtime.onnx_metadata import read_spec

TARGETS = [target for target in SCHEMES if target != "ncnn"]  # it has its own test, and no ONNX file in INT8
SM89 = EngineOptions(targets=("sm89",))


def node_that_makes(graph, name):
    return next(node for node in graph.node if name in node.output)


@pytest.mark.parametrize("target", TARGETS)
def test_weights_are_int8_per_channel_and_states_float32(int8, target):
    result = int8(for_=target)
    model = onnx.load(result.paths[0])
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    activation = TensorProto.UINT8 if target in {"onnxruntime", "openvino"} else TensorProto.INT8
    layers = layers_of_quantized(model)
    assert len(layers) == 27
    for node in layers:
        entered, weight = (node_that_makes(model.graph, name) for name in node.input[:2])
        assert entered.op_type == weight.op_type == "DequantizeLinear"
        values, scales = constants[weight.input[0]], numpy_helper.to_array(constants[weight.input[1]])
        axis = 1 if node.op_type == "ConvTranspose" else 0
        assert values.data_type == TensorProto.INT8
        assert scales.shape == (values.dims[axis],)
        assert next(a.i for a in weight.attribute if a.name == "axis") == axis
        assert not numpy_helper.to_array(constants[weight.input[2]]).any()
        assert constants[entered.input[2]].data_type == activation
        assert constants[node.input[2]].data_type == TensorProto.FLOAT
    assert {one.name: one.type.tensor_type.elem_type for one in (*model.graph.input, *model.graph.output)} == {
        "frame": TensorProto.UINT8,
        **dict.fromkeys(("ema30_in", "mix", "saliency", "ema30_out"), TensorProto.FLOAT),
    }
    assert not is_rounded(model.graph, "ema30_out")
    assert (model.ir_version, [(one.domain, one.version) for one in model.opset_import]) == (8, [("", 18)])
    assert read_spec(result.paths[0]) == result.spec
    assert result.spec.precision == "int8"


def layers_of_quantized(model):
    return [node for node in model.graph.node if node.op_type in {"Conv", "ConvTranspose"}]


def is_rounded(graph, name):
    return node_that_makes(graph, name).op_type == "DequantizeLinear"


def test_the_report_holds_and_the_file_is_a_quarter(int8, exported):
    result, found = int8(for_="tensorrt"), int8(for_="tensorrt").int8.accuracy
    assert 0.99 <= found.cc <= found.cc_mean < 1
    assert 0.9 < found.sim <= found.sim_mean < 1
    assert 0 < found.nss_delta < 0.2
    assert 0 < found.map_mean < found.map_max < 0.05
    assert abs(found.drift_cc) < 0.01
    assert found.control_cc < 0.99
    assert (found.frames, found.steps) == (16, 300)
    assert (result.int8.calibration_frames, result.int8.calibration_runs) == (24, 2)
    plain = exported(WEIGHTS, imgsz_hw=SIZE_HW, for_="openvino") / "model.onnx"
    assert 0.2 < result.size_bytes / plain.stat().st_size < 0.3


@pytest.mark.parametrize("target", TARGETS)
def test_onnx_runtime_and_openvino_run_it_in_int8(int8, target):
    result = int8(for_=target)
    frames = moving_disc(4, *SIZE_HW)
    model = ov.Core().compile_model(str(result.paths[0]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    state = np.zeros((1, 128, 2, 3), np.float32)
    with load(result.paths[0].parent, backend="onnxruntime", device="cpu") as stream:
        for t, frame in enumerate(frames):
            mix = np.full(1, 0.1 if t else 1, np.float32)
            answer = model({"frame": frame[None], "ema30_in": state, "mix": mix})
            state = answer["ema30_out"]
            assert np.abs(answer["saliency"][0, 0] - stream.step(frame)).max() < 0.02
    assert set(answer.keys()) == set(model.outputs)


@pytest.mark.tensorrt
@pytest.mark.parametrize("target", ["any", "tensorrt"])
def test_tensorrt_rtx_builds_it(int8, target):
    built = build_engine(int8(for_=target).paths[0], TENSORRT_RTX, SM89, lambda _: None)
    assert (built.info.convolutions, built.info.spec.precision) == (27, "int8")


@pytest.mark.tensorrt
def test_tensorrt_is_told_apart_from_cpus(int8, cli, clip, tmp_path):
    with pytest.raises(BackendError, match="unsigned activations, which TensorRT does not take: export with --for ten"):
        build_engine(int8(for_="openvino").paths[0], TENSORRT_RTX, SM89, lambda _: None)
    arguments = ("--weights", WEIGHTS, "--int8", "--calib", clip, "--for", "openvino", "-o", tmp_path / "model")
    ran = cli(main, *arguments, "--engine", "tensorrt-rtx", "--target", "sm89")
    assert (ran.code, "TensorRT can't read that; leave out --for openvino" in ran.err) == (2, True)
    ran = cli(main, *arguments, "--workspace", 1)
    assert ran.code == 2
    assert (
        "--int8 --for openvino: TensorRT can't read that, but engine options were given; leave them out, or" in ran.err
    )


def test_the_state_runs_while_it_is_calibrated(exported, clip):
    run = gather(str(clip), 16, *SIZE_HW).runs[0]
    with OrtSession(exported(imgsz_hw=SIZE_HW) / "model.onnx", "cpu") as session:
        fed = list(feeds(session, run))
    states = [feed["ema30_in"] for feed in fed]
    assert not states[0].any()
    assert all(np.abs(b - a).max() > 1e-4 for a, b in itertools.pairwise(states))
    assert [float(feed["mix"][0]) for feed in fed] == [1.0] + [pytest.approx(0.1)] * 15
    assert all((feed["frame"][0] == frame).all() for feed, frame in zip(fed, run, strict=True))


@pytest.mark.parametrize(("frames", "tried"), [(16, 4), (24, 8)])
def test_no_frame_is_tried_twice(exported, clip, tmp_path, frames, tried):
    """Runs have 16 frames; four of the first and four of the last are tried, and sixteen frames are one run."""
    proto, footage = onnx.load(exported(imgsz_hw=SIZE_HW) / "model.onnx"), gather(str(clip), frames, *SIZE_HW)
    with Trials(proto, tmp_path, footage, form_for("any", None, proto, [], tmp_path)) as trials:
        assert len(trials._expected) == tried
        maps = [saliency.tobytes() for saliency in trials._expected]
    assert len(set(maps)) == tried


@pytest.mark.usefixtures("traced_anew", "whole_gate")
def test_two_exports_are_equal_to_the_byte(int8, clip, tmp_path):
    options = ExportOptions(imgsz_hw=SIZE_HW, precision="int8", calib=str(clip), calib_frames=24, for_="tensorrt")
    again = export_model(WEIGHTS, tmp_path, options, lambda _: None)
    assert again.paths[0].read_bytes() == int8(for_="tensorrt").paths[0].read_bytes()
    assert again.int8 == int8(for_="tensorrt").int8


def test_rounding_before_a_relu_changes_nothing(exported):
    """Q/DQ back to the convolution before gives the same maps as Q/DQ at the inputs only."""
    proto = onnx.load(exported(imgsz_hw=SIZE_HW) / "model.onnx")
    ranges = dict.fromkeys(layers_of(proto), (0.0, 3.0)) | {"salgan.0": (-124.0, 152.0)}
    frames = moving_disc(3, *SIZE_HW)
    maps = {}
    for carried in (False, True):
        maps[carried] = run_bytes(quantize(proto, ranges, replace(SCHEMES["any"], carried=carried), 7), frames)
    difference = np.abs(maps[True] - maps[False])  # ties alone: a sum that is in the middle goes either way
    assert (difference.mean(), difference.max()) < (1e-3, 1e-2)
    assert difference.max() < 1e-2 < np.ptp(maps[False])


def run_bytes(proto, frames):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(proto, path)
        with load(path, backend="onnxruntime", device="cpu") as stream:
            return np.stack([stream.step(frame) for frame in frames])


def test_any_batch_and_split_models_too(int8):
    frames = moving_disc(3, *SIZE_HW)
    for options in ({"batch": None}, {"batch": 2}):
        with load(int8(for_="tensorrt", **options).paths[0].parent, backend="onnxruntime", streams=2) as stream:
            maps = [stream.step_batch([frame, frame]) for frame in frames]
        with load(int8(for_="tensorrt").paths[0].parent, backend="onnxruntime") as stream:
            expected = np.stack([stream.step(frame) for frame in frames])
        np.testing.assert_allclose(np.stack(maps)[:, 1], expected, atol=5e-3)
    split = int8(for_="tensorrt", split=True)
    assert len(split.paths) == 2
    with load(split.paths[0].parent) as stream:
        np.testing.assert_allclose([stream.step(frame) for frame in frames], expected, atol=5e-3)


def uneven(path, *layers):
    """The same network in float; before each of these layers one channel is 3000 times as great as the others."""
    weights = {name: tensor.clone() for name, tensor in load_checkpoint("seeded:16").weights.items()}
    convolutions = [name for name in weights if name.endswith("weight")]
    for layer in layers:
        after = f"salgan.{layer}.weight"
        before = convolutions[convolutions.index(after) - 1]
        weights[before][0] *= 3000
        weights[before.replace("weight", "bias")][0] *= 3000
        weights[after][:, 0] /= 3000
    torch.save({"epoch": 8, "state_dict": weights, "optimizer": {}}, path)
    return str(path)


def test_layers_that_break_int8_are_found_and_left_in_float(clip, tmp_path):
    weights = uneven(tmp_path / "w.pt", 12)
    options = {"imgsz_hw": SIZE_HW, "precision": "int8", "calib": str(clip), "calib_frames": 16, "for_": "tensorrt"}
    result = export_model(weights, tmp_path / "model", ExportOptions(**options), lambda _: None)
    assert result.int8.sensitivity[0][0] == "salgan.12"
    assert result.int8.sensitivity[0][1] < 0.99 < result.int8.sensitivity[1][1]
    assert result.int8.float_layers == ("salgan.12",)
    assert result.int8.accuracy.cc >= 0.99


def test_below_the_gate_nothing_is_written_and_the_layers_are_named(clip, tmp_path):
    weights = uneven(tmp_path / "w.pt", 5, 12, 17, 21, 26, 34, 41, 48)
    options = {"imgsz_hw": SIZE_HW, "precision": "int8", "calib": str(clip), "calib_frames": 16, "for_": "tensorrt"}
    with pytest.raises(
        VerificationError, match=r"least CC -?0\.\d+ over 60 .* to blame: salgan\.\d+ \(-?0\.\d+ alone"
    ) as e:
        export_model(weights, tmp_path / "model", ExportOptions(**options), lambda _: None)
    blamed = re.findall(r"--float-layer salgan\.(\d+)", str(e.value))
    assert len(blamed) == 3
    assert set(map(int, blamed)) < {5, 12, 17, 21, 26, 34, 41, 48}
    assert [path.name for path in tmp_path.iterdir()] == ["w.pt"]


def test_the_command_prints_the_table_and_leaves_layers_in_float(cli, clip, tmp_path):
    arguments = ("--weights", WEIGHTS, "--imgsz", *SIZE_HW, "--engine", "none", "--int8", "--calib", clip)
    arguments += ("--calib-frames", 16, "--for", "tensorrt", "--float-layer", "salgan.60", "-o", tmp_path / "model")
    ran = cli(main, *arguments, "--sensitivity", "--json")
    assert ran.code == 0
    record = json.loads(ran.out)["int8"]
    values = [value for _, value in record["sensitivity"]]
    assert len(values) == 27
    assert values == sorted(values)
    assert values[0] < 1
    assert record["float_layers"] == ["salgan.60"]
    assert read_spec(tmp_path / "model/model.onnx").float_layers == ("salgan.60",)
    model = onnx.load(tmp_path / "model/model.onnx")
    rounded = [is_rounded(model.graph, node.input[0]) for node in layers_of_quantized(model)]
    assert rounded == [True] * 26 + [False]
    assert record["accuracy"]["cc"] >= 0.99
    assert "16 to calibrate on, 16 held out" in ran.err
    ran = cli(main, *arguments[:-2], "-o", tmp_path / "b", "--float-layer", "relu")
    assert (ran.code, "--float-layer relu: the layers of this model are salgan.0, " in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("--int8",), 2, "--int8 and --calib go together"),
        (("--calib", "x.mp4"), 2, "--calib goes with --int8"),
        (("--sensitivity",), 2, "--sensitivity goes with --int8"),
        (("--int8", "--half", "--calib", "x.mp4"), 2, "--fp16 --int8: give one of them"),
        (("--int8", "--calib", "absent.mp4"), 1, "absent.mp4: no such video file"),
        (("--int8", "--calib", "0"), 2, "--calib 0: give a video file, or a folder"),
        (
            ("--int8", "--calib", "CLIP"),
            1,
            "has 48 frames; --calib-frames 64 takes 96, two thirds of them to calibrate",
        ),
        (("--int8", "--calib", "CLIP", "--calib-frames", 0), 2, "--calib-frames 0: give 1 or more"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(cli, clip, tmp_path, options, code, sentence):
    options = [clip if option == "CLIP" else option for option in options]
    ran = cli(main, "--weights", "seeded:16", "--imgsz", 32, 32, "-o", tmp_path / "model", *options)
    assert ran.code == code
    assert sentence in ran.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_there_and_back():
    frames = np.arange(4)
    assert there_and_back(frames, 9).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
