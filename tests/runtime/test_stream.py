import re

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.backends.ort_session import OrtSession
from salema.runtime.cli.run import main
from salema.runtime.errors import ModelError, UsageError
from salema.runtime.preprocess import to_network_size


def test_the_documented_example(model):
    with load(model) as stream:
        saliency = stream.step(moving_disc(1, 123, 457)[0])
        assert saliency.shape == (64, 96)
        assert saliency.dtype == np.float32
        stream.reset()


def test_frames_of_any_size_are_resized_to_the_network(model):
    frame = moving_disc(1, 360, 640)[0]
    with load(model) as stream:
        a = stream.step(frame)
        stream.reset()
        np.testing.assert_array_equal(stream.infer(to_network_size(frame, 64, 96)[None])[0], a)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((64, 96, 3), np.float32),
        np.zeros((64, 96), np.uint8),
        np.zeros((64, 96, 4), np.uint8),
        np.zeros((0, 96, 3), np.uint8),
    ],
)
def test_other_frames_are_refused(model, frame):
    with load(model) as stream, pytest.raises(UsageError, match=r"uint8 BGR \(h, w, 3\) expected"):
        stream.step(frame)


def test_misuse_is_named(model, exported, disc):
    with load(model) as stream:
        with pytest.raises(UsageError, match="a frame is NoneType, not an array; did the camera or file end"):
            stream.step(None)
        with pytest.raises(UsageError, match=r"float32 frames \(1, 64, 96, 3\) given, uint8"):
            stream.infer(disc[:1].astype(np.float32))
        with pytest.raises(UsageError, match="0 frames given for 1 streams"):
            stream.step_batch([])
    with pytest.raises(UsageError, match="the model is closed"):
        stream.step(disc[0])


def ending_with(model, folder, *nodes):
    """Writes the model with other nodes in place of its sigmoid, one after the other."""
    proto = onnx.load(model / "model.onnx")
    graph = proto.graph
    (sigmoid,) = [node for node in graph.node if "saliency" in node.output]
    assert sigmoid.op_type == "Sigmoid"
    graph.node.remove(sigmoid)
    graph.initializer.append(numpy_helper.from_array(np.float32(1.001), "scale"))
    value = sigmoid.input[0]
    for index, (kind, *others) in enumerate(nodes, 1):
        name = "saliency" if index == len(nodes) else f"ending{index}"
        graph.node.append(helper.make_node(kind, [value, *others], [name]))
        value = name
    folder.mkdir()
    onnx.save(proto, folder / "model.onnx")
    return folder


def test_a_model_without_its_sigmoid_is_refused_wherever_it_runs(cli, model, disc, small_clip, tmp_path):
    folder = ending_with(model, tmp_path / "m", ("Mul", "scale"))
    sentence = (
        r"seeded:16: the model gave values from -?[\d.]+ to [\d.]+, and a saliency map lies in 0 to 1; export the"
    )
    with load(folder) as stream, pytest.raises(ModelError, match=sentence):
        for frame in disc:
            stream.step(frame)
    ran = cli(main, small_clip, "--model", folder, "-o", tmp_path / "out/o.mp4", "--npz", tmp_path / "out/o.npz")
    assert (ran.code, bool(re.search(f"^salema-run: {sentence}", ran.err, re.MULTILINE))) == (1, True), ran.err
    assert list((tmp_path / "out").iterdir()) == []


def test_values_that_rounding_puts_above_1_are_clipped(model, disc, tmp_path):
    """A thousandth is less than half a level of 8 bits."""
    folder = ending_with(model, tmp_path / "m", ("Sigmoid",), ("Ceil",), ("Mul", "scale"))
    with load(folder) as stream:
        assert np.unique(stream.step(disc[0])).tolist() == [1]


@pytest.mark.parametrize("elapsed", [0.5, 1, 2, 7.25])
def test_the_weight_of_a_frame_follows_the_time_since_the_last(model, disc, elapsed):
    """The state is linear in the weight, so two known weights tell which one was taken."""
    with load(model) as stream:
        stream.step(disc[0], elapsed)  # a first frame is taken whole, whenever it comes
        first = stream.snapshot()
        stream.step(disc[1], elapsed)
        found = stream.snapshot()["ema30"]
        stream.reset()
        stream.step(disc[1])
        fresh = stream.snapshot()["ema30"]
        stream.reset()
        stream.step(disc[0])
        np.testing.assert_array_equal(stream.snapshot()["ema30"], first["ema30"])
    moved = float(((found - first["ema30"]) * (fresh - first["ema30"])).sum() / ((fresh - first["ema30"]) ** 2).sum())
    assert moved == pytest.approx(1 - 0.9**elapsed, rel=1e-4)


@pytest.mark.parametrize("elapsed", [0, -1, float("nan"), float("inf")])
def test_times_that_cannot_be(model, disc, elapsed):
    with load(model) as stream, pytest.raises(UsageError, match="give the frames' time since the last one"):
        stream.step(disc[0], elapsed)


def test_time_means_nothing_without_an_average(exported, disc):
    with load(exported(arch="salclstm30")) as stream:
        stream.step(disc[0], 1)
        with pytest.raises(UsageError, match=r"elapsed=2: SalCLSTM30 has no average whose weight could follow it"):
            stream.step(disc[1], 2)


def test_the_number_of_streams_must_fit(model, exported, disc, monkeypatch):
    with pytest.raises(UsageError, match="exported with --batch 1"):
        load(model, streams=2)
    with pytest.raises(UsageError, match="0 streams"):
        load(exported(batch=None), streams=0)
    stopped = []
    monkeypatch.setattr(OrtSession, "close", lambda session: stopped.append(session.spec))
    with pytest.raises(UsageError, match="exported with --batch 1"):
        load(model, backend="onnxruntime", device="cpu", streams=2)
    assert [spec.batch for spec in stopped] == [1]  # the session that nobody was handed
    monkeypatch.undo()
    with load(exported(batch=None), streams=2) as stream:
        with pytest.raises(UsageError, match="1 frames given for 2 streams"):
            stream.step(disc[0])
        with pytest.raises(UsageError, match="there are streams 0 to 1"):
            stream.reset(2)


def test_a_snapshot_of_another_model_is_refused(model, exported):
    with (
        load(model) as stream,
        load(exported(arch="salclstm30")) as other,
        pytest.raises(UsageError, match="the snapshot is of another model"),
    ):
        stream.restore(other.snapshot())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "ncnn"])
def test_a_closed_stream_says_so_whatever_is_asked(model, backend):
    with load(model, backend=backend, device="cpu") as stream:
        snapshot = stream.snapshot()
    for ask in (stream.snapshot, stream.reset, lambda: stream.restore(snapshot)):
        with pytest.raises(UsageError, match="^the model is closed; load it again$"):
            ask()
