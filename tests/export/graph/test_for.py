"""`--for`: graphs for each runtime, which give the same maps as the plain one."""

import numpy as np
import onnx
import pytest

from salema.export.cli import main
from salema.export.graph.rewrite import CROPPED, FOR, MEAN, TRANSPOSED
from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.onnx_metadata import read_spec

TOLERANCE = {"fp32": 1e-5, "fp16": 3e-3}
REWRITTEN = {"onnxruntime": CROPPED, "openvino": TRANSPOSED}


def kinds(folder, name="model.onnx"):
    return {node.op_type for node in onnx.load(folder / name).graph.node}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("target", REWRITTEN)
def test_the_maps_are_those_of_the_plain_graph(exported, target, precision):
    plain, rewritten = exported(precision=precision), exported(precision=precision, for_=target)
    assert read_spec(plain / "model.onnx").rewrites == ()
    assert read_spec(rewritten / "model.onnx").rewrites == (REWRITTEN[target],)
    assert "Resize" in kinds(plain)
    assert "Resize" not in kinds(rewritten)
    assert ("ConvTranspose" in kinds(rewritten)) == (target == "openvino")
    with load(plain) as one, load(rewritten) as other:
        for frame in moving_disc(5, 90, 120):
            expected, found = one.step(frame), other.step(frame)
            assert np.abs(found - expected).max() <= TOLERANCE[precision]
        for name, state in one.snapshot().items():
            np.testing.assert_allclose(other.snapshot()[name], state, atol=TOLERANCE[precision] * max(state.max(), 1))


@pytest.mark.parametrize("target", REWRITTEN)
def test_any_batch_and_split_models_too(exported, target):
    frames = moving_disc(4, 64, 96)
    with load(exported()) as plain:
        expected = [plain.step(frame) for frame in frames]
    with load(exported(batch=None, for_=target), streams=3) as stream:
        for t, frame in enumerate(frames):
            maps = stream.step_batch([frame, frames[0], frame])
            np.testing.assert_allclose(maps[[0, 2]], [expected[t]] * 2, atol=1e-5)
    folder = exported(split=True, for_=target)
    assert "Resize" not in kinds(folder, "decoder.onnx")
    with load(folder) as stream:
        np.testing.assert_allclose([stream.step(frame) for frame in frames], expected, atol=1e-5)


@pytest.mark.parametrize("target", ["any", "tensorrt", "ncnn"])
def test_where_rewriting_does_not_pay_or_was_not_measured_the_graph_is_plain(exported, target):
    assert FOR[target] == ()
    assert "Resize" in kinds(exported(for_=target))


def test_the_command(cli, tmp_path):
    arguments = ("--weights", "seeded:16", "--imgsz", 64, 96, "--engine", "none", "--for", "onnxruntime")
    ran = cli(main, *arguments, "-o", tmp_path / "a")
    assert ran.code == 0
    assert "rewritten: upsampling-cropped" in ran.err
    ran = cli(main, *arguments, "--no-rewrite", "-o", tmp_path / "b")
    assert ran.code == 0
    assert "rewritten" not in ran.err
    assert read_spec(tmp_path / "b/model.onnx").rewrites == ()
    ran = cli(main, *arguments[:-1], "abacus", "-o", tmp_path / "c")
    assert (ran.code, (tmp_path / "c").exists()) == (2, False)
    assert ran.err.endswith("--for abacus: not one of any, onnxruntime, openvino, tensorrt, ncnn\n")


@pytest.mark.parametrize("options", [{}, {"precision": "fp16"}, {"batch": None}, {"split": True}])
def test_the_mean_as_a_fourth_channel(exported, options):
    plain, rewritten = exported(**options), exported(**options, mean_channel=True)
    part = "encoder" if "split" in options else "model"
    assert read_spec(rewritten / f"{part}.onnx").rewrites == (MEAN,)
    assert "Sub" in {node.op_type for node in onnx.load(plain / f"{part}.onnx").graph.node}
    first = next(node for node in onnx.load(rewritten / f"{part}.onnx").graph.node if node.op_type == "Conv")
    shapes = {tensor.name: tensor.dims for tensor in onnx.load(rewritten / f"{part}.onnx").graph.initializer}
    assert shapes[first.input[1]][1] == 4
    tolerance = TOLERANCE[options.get("precision", "fp32")]
    with load(plain) as one, load(rewritten) as other:
        for frame in moving_disc(3, 64, 96):
            assert np.abs(one.step(frame) - other.step(frame)).max() <= tolerance


def test_the_command_folds_the_mean_when_asked(cli, tmp_path):
    arguments = ("--weights", "seeded:16", "--imgsz", 64, 96, "--engine", "none", "--mean-channel")
    ran = cli(main, *arguments, "--for", "openvino", "-o", tmp_path / "a")
    assert ran.code == 0
    assert "rewritten: upsampling-transposed, mean-as-channel" in ran.err
