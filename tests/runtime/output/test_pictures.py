"""From source frames to pictures, all on the device: the kernels' sources over host memory."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from host_device import HostDevice, QueuedLauncher, open_host
from videos import outputs, probe, write_clip

from salema.export.weights.seeded import moving_disc
from salema.runtime.backends.opening import open_session
from salema.runtime.errors import ModelError, UsageError
from salema.runtime.gpu.device_session import DeviceSession
from salema.runtime.output.outputs import Outputs
from salema.runtime.postprocess import VIEWS, Look, Normaliser, ToDraw, render, to_grey, to_levels
from salema.runtime.run.pipeline import process_video
from salema.runtime.run.stages import RunOptions
from salema.runtime.session import PictureSession
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import find_sources
from salema.runtime.stream import SaliencyStream

SIZES = {"smaller": (48, 64), "larger": (121, 187), "whole ratio": (128, 192), "the network's": (64, 96)}


@pytest.fixture
def on_device(model):
    """A stream over host memory, with its device."""

    def make(folder=model, *, integrated=False, **options):
        device = HostDevice(integrated=integrated)
        launcher = QueuedLauncher(device)
        session = DeviceSession(open_host(folder, device), device, launcher, "host", **options)
        return SaliencyStream(session), device, session

    return make


def natural(count, size):
    """Frames with noise on them, so that a wrong pixel shows."""
    frames = moving_disc(count, *size).astype(np.int16)
    return (frames + np.random.default_rng(0).integers(-20, 20, frames.shape)).clip(0, 255).astype(np.uint8)


def expected(stream, frame, view):
    grey = to_grey(stream.step(frame))
    return grey, None if view is None else render(frame, grey, Look(view))


def run(stream, clip, out, view):
    outputs = Outputs(video=out.with_suffix(".mp4"), maps=out)
    with Playback(find_sources([str(clip)])[0]) as source:
        return process_video(stream, source, outputs, RunOptions(Look(view)))


def assert_same(pictures, grey, image):
    np.testing.assert_array_equal(pictures.grey, grey)
    assert pictures.is_finite
    if image is None:
        assert pictures.image_bgr is None
    else:
        np.testing.assert_array_equal(pictures.image_bgr, image)


@pytest.mark.parametrize("view", [None, *VIEWS])
@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_those_of_the_cpu_to_the_bit(model, on_device, view, size):
    stream, device, session = on_device()
    with stream, open_session(model, "onnxruntime", "cpu") as plain:
        other = SaliencyStream(plain)
        for index, frame in enumerate(natural(6, SIZES[size])):
            if index == 4:
                stream.reset()
                other.reset()
            assert_same(stream.picture(frame, Look(view)), *expected(other, frame, view))
        assert len(session._graphs) == 2
        assert device.launches == 4


@pytest.mark.parametrize("options", [{"integrated": True}, {"graphs": False}, {"state_scheme": "copy"}])
def test_on_every_kind_of_device(model, on_device, options):
    stream, _, _ = on_device(**options)
    with stream, open_session(model, "onnxruntime", "cpu") as plain:
        other = SaliencyStream(plain)
        for frame in natural(5, (90, 121)):
            assert_same(stream.picture(frame, Look()), *expected(other, frame, "overlay"))


def test_only_what_the_gpu_reads_once_is_mapped(on_device, monkeypatch):
    stream, device, _ = on_device(integrated=True)
    mapped, allocate = [], device.allocate_host

    def allocating(nbytes, **options):
        mapped.extend([nbytes] * options["mapped"])
        return allocate(nbytes, **options)

    monkeypatch.setattr(device, "allocate_host", allocating)
    with stream:
        stream.picture(natural(1, (90, 121))[0], Look())
    assert mapped == [4]  # the coefficient; every thread of a kernel reads the map's range


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_of_a_split_model(exported, on_device, precision):
    folder = exported(split=True, precision=precision)
    stream, _, _ = on_device(folder)
    with stream, open_session(folder, "onnxruntime", "cpu") as plain:
        other = SaliencyStream(plain)
        for frame in natural(5, (90, 120)):
            assert_same(stream.picture(frame, Look()), *expected(other, frame, "overlay"))


def test_sizes_views_and_plain_steps_may_take_turns(model, on_device):
    stream, device, _ = on_device()
    with stream, open_session(model, "onnxruntime", "cpu") as plain:
        other = SaliencyStream(plain)
        held = set()
        for _ in range(3):
            for size, view in (((90, 120), "overlay"), ((90, 120), "map"), ((48, 64), None)):
                for frame in natural(3, size):
                    assert_same(stream.picture(frame, Look(view)), *expected(other, frame, view))
            for frame in natural(3, (64, 96)):
                np.testing.assert_array_equal(stream.step(frame), other.step(frame))
            held.add(len(device.pieces))
        assert len(held) == 1
    assert not device.pieces


LOOKS = {
    "not normalised": Look(normalise="none"),
    "not normalised, in grey": Look("map", "none"),
    "other colours": Look("side-by-side", colormap="turbo", opacity=0.3),
    "frame only": Look(opacity=0),
    "colours only": Look(opacity=1, colormap="twilight_shifted"),
    "levels only": Look(None, "none"),
}


@pytest.mark.parametrize("look", LOOKS)
def test_every_look_is_that_of_the_cpu_with_the_raw_map_on_request(model, on_device, look):
    stream, _, _ = on_device()
    look = LOOKS[look]
    with stream, open_session(model, "onnxruntime", "cpu") as plain:
        other, normaliser = SaliencyStream(plain), Normaliser(look.normalise)
        for index, frame in enumerate(natural(6, (121, 187))):
            elapsed = 1 + index % 3
            pictures = stream.picture(frame, look, elapsed, raw=index % 2 == 1)
            saliency = other.step(frame, elapsed)
            limits = normaliser.limits(saliency)
            grey = to_levels(saliency, limits)
            assert_same(pictures, grey, None if look.view is None else render(frame, grey, look))
            assert pictures.limits == limits
            if index % 2:
                np.testing.assert_array_equal(pictures.saliency, saliency)
            else:
                assert pictures.saliency is None


def test_running_limits_are_not_had_on_the_device(on_device):
    stream, _, _ = on_device()
    with stream, pytest.raises(UsageError, match="running limits are not known on the device"):
        stream.picture(natural(1, (64, 96))[0], Look(normalise="running"))


def test_only_the_source_frame_goes_up_and_the_pictures_come_down(on_device, monkeypatch):
    stream, device, _ = on_device()
    frames = natural(4, (90, 120))
    with stream:
        stream.picture(frames[0], Look())
        crossed = []
        upload, download = device.upload, device.download
        monkeypatch.setattr(device, "upload", lambda at, data: (crossed.append(data.nbytes), upload(at, data)))
        monkeypatch.setattr(device, "download", lambda data, at: (crossed.append(-data.nbytes), download(data, at)))
        stream.picture(frames[1], Look())
    image = 90 * 120 * 3
    assert sorted(crossed) == sorted([4, image, -image, -64 * 96, -8])


def test_nan_is_seen(exported, on_device):
    stream, _, _ = on_device()
    with stream:
        stream.picture(natural(1, (90, 120))[0], Look(None))
        poison = stream.snapshot()
        poison["ema30"][:] = np.nan
        stream.restore(poison)
        assert not stream.picture(natural(1, (90, 120))[0], Look()).is_finite


def test_maps_outside_0_to_1_are_seen(on_device, monkeypatch):
    stream, _, session = on_device()
    step_pictures = session.step_pictures

    def scaled(by):
        def step(*arguments):
            (made,), states = (part.values() if isinstance(part, dict) else part for part in step_pictures(*arguments))
            high = made.range[1]
            return {0: replace(made, range=(0, by), saliency=made.saliency * np.float32(by / high))}, states

        monkeypatch.setattr(session, "step_pictures", step)

    with stream:
        scaled(1.5)
        with pytest.raises(ModelError, match=r"values from 0 to 1\.5, and a saliency map lies in 0 to 1"):
            stream.picture(natural(1, (90, 120))[0], Look(), raw=True)
        scaled(1.001)
        assert stream.picture(natural(1, (90, 120))[0], Look(), raw=True).saliency.max() == 1


def test_frames_are_checked(on_device, model):
    stream, _, session = on_device()
    with stream:
        assert isinstance(session, PictureSession)
        assert stream.draws_pictures
        for frame in (None, np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3))):
            with pytest.raises(UsageError, match="a frame"):
                stream.picture(frame, Look("map"))
    with open_session(model, "onnxruntime", "cpu") as plain:
        assert not SaliencyStream(plain).draws_pictures
        with pytest.raises(UsageError, match="pictures are drawn for one stream on a GPU only"):
            SaliencyStream(plain).picture(np.zeros((4, 4, 3), np.uint8), Look("map"))


def test_a_stream_of_several_draws_no_pictures(exported, on_device):
    _, _, session = on_device(exported(batch=None))
    with session:
        stream = SaliencyStream(session, 2)
        assert not stream.draws_pictures
        states = session.from_host({"ema30": np.zeros((2, 32, 4, 6), np.float32)})
        with pytest.raises(UsageError, match="pictures of 1 streams asked for, and these states are of 2"):
            session.step_pictures({0: ToDraw(np.zeros((8, 8, 3), np.uint8), Look())}, states, np.ones(1, np.float32))


@pytest.mark.usefixtures("steady_x264")
@pytest.mark.parametrize("normalise", ["frame", "running", "none"])
def test_numbers_cuts_and_raw_maps_are_the_same_as_on_the_cpu(model, on_device, tmp_path, normalise):
    frames = np.concatenate([natural(40, (90, 120)) // 8, 255 - natural(10, (90, 120)) // 8])
    (source,) = find_sources([str(write_clip(tmp_path / "cut.mp4", frames))])
    options = RunOptions(Look(normalise=normalise), reset_on_cut=True, time_aware=True)
    stream, _, _ = on_device()
    with stream, open_session(model, "onnxruntime", "cpu") as plain:
        for name, one in (("gpu", stream), ("cpu", SaliencyStream(plain))):
            out = tmp_path / name
            outputs = Outputs(out / "o.mp4", out / "maps", out / "o.npz", out / "o.csv", 16)
            with Playback(source, Selection(stride=2)) as playback:
                assert process_video(one, playback, outputs, options).cuts == 1
    for path in sorted((tmp_path / "cpu").rglob("*.*")):
        if path.name.endswith("salema.json"):  # it names the backend
            continue
        assert (tmp_path / "gpu" / path.relative_to(tmp_path / "cpu")).read_bytes() == path.read_bytes(), path


@pytest.mark.usefixtures("steady_x264")
@pytest.mark.parametrize("view", VIEWS)
def test_a_whole_video_is_the_same_file_as_on_the_cpu(model, on_device, small_clip, tmp_path, view):
    stream, _, _ = on_device()
    with stream:
        summary = run(stream, small_clip, tmp_path / "gpu", view)
    with open_session(model, "onnxruntime", "cpu") as session:
        run(SaliencyStream(session), small_clip, tmp_path / "cpu", view)
    assert summary.frames == 12
    assert summary.stage_ms["step"] > 0
    assert summary.stage_ms["preprocess"] == summary.stage_ms["postprocess"] == 0
    names = [path.name for path in outputs(tmp_path / "cpu")]
    assert len(names) == 12
    for name in names:
        assert (tmp_path / "gpu" / name).read_bytes() == (tmp_path / "cpu" / name).read_bytes()
    found, same = probe(tmp_path / "gpu.mp4"), probe(tmp_path / "cpu.mp4")
    np.testing.assert_array_equal(found["images"], same["images"])
    assert cv2.imread(str(tmp_path / "gpu" / names[0]), cv2.IMREAD_UNCHANGED).shape == (64, 96)


def test_a_video_with_nan_ends_in_a_sentence(on_device, small_clip, tmp_path, monkeypatch):
    stream, _, session = on_device()
    start = session.from_host({"ema30": np.full((1, 32, 4, 6), np.nan, np.float32)})
    monkeypatch.setattr(session, "from_host", lambda arrays: start)
    monkeypatch.setattr(stream, "_mix", lambda _: np.full(1, 0.5, np.float32))
    with stream, pytest.raises(ModelError, match="the model gave NaN or infinity for a frame"):
        run(stream, small_clip, tmp_path / "gpu", "overlay")
    assert not (tmp_path / "gpu.mp4").exists()
