"""GPU sessions on the driver: PyCUDA, cuda-bindings, kernels, CUDA graphs; ONNX Runtime stands in for TensorRT."""

import gc
import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from constant_engine import SIZE_HW
from host_driver.calls import kernels_run, set_integrated, set_memory
from host_driver.constants import SALIENCY, open_constants, states_after, step_and_check
from host_driver.engine import open_engine
from runs import arrays_of

from salema.export.weights.seeded import moving_disc
from salema.kernels.device.cuda import CudaDevice
from salema.kernels.errors import BackendError
from salema.runtime.backends.opening import open_session
from salema.runtime.batching.stream_batch import StreamBatch
from salema.runtime.cli.run import main
from salema.runtime.gpu import trt_session
from salema.runtime.gpu.device_session import DeviceSession
from salema.runtime.model_folder import look_up
from salema.runtime.postprocess import Look, render, to_grey
from salema.runtime.stream import SaliencyStream

pytestmark = pytest.mark.gpu
MODELS = {"whole": "SALEMA_HOST_DRIVER_MODEL", "split": "SALEMA_HOST_DRIVER_SPLIT"}


@pytest.fixture(params=[False, True], ids=["discrete", "integrated"])
def integrated(request):
    set_integrated(request.param)
    yield request.param
    set_integrated(False)


def folder_of(kind):
    return Path(os.environ[MODELS[kind]])


def walk(session, frames):
    """Maps, states and pictures of a video with a reset in the middle."""
    stream, steps = SaliencyStream(session), []
    for index, frame in enumerate(frames):
        if index == len(frames) // 2:
            stream.reset()
        steps += [stream.step(frame), *stream.snapshot().values()]
    for frame in np.repeat(frames[:3], 2, 1):
        steps += [*pictures_of(stream, frame, Look("overlay")), *stream.snapshot().values()]
    return steps


def pictures_of(stream, frame, look):
    """The 8-bit map and the picture: drawn on the GPU, or on the CPU where the session has none."""
    if isinstance(stream._session, DeviceSession):
        pictures = stream.picture(frame, look)
        return pictures.grey, pictures.image_bgr
    grey = to_grey(stream.step(frame))
    return grey, render(frame, grey, look)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("graphs", "scheme"), [(True, "ping-pong"), (True, "copy"), (False, "ping-pong")])
def test_a_session_gives_what_onnx_runtime_gives(kind, graphs, scheme, integrated):
    frames = moving_disc(8, *SIZE_HW)
    with open_session(folder_of(kind), "onnxruntime", "cpu") as session:
        expected = walk(session, frames)
    engine, device, launcher = open_engine(look_up(folder_of(kind)))
    with DeviceSession(engine, device, launcher, "host driver", graphs=graphs, state_scheme=scheme) as session:
        assert device.integrated == integrated
        found = walk(session, frames)
        assert bool(len(session._graphs)) == graphs
    for value, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(value, wanted)


def written_by(cli, clip, out, *named):
    """The files that `salema-run` writes of a clip, by name, and what it prints."""
    files = ("-o", out / "out.mp4", "--maps", out / "maps", "--npz", out / "raw.npz", "--csv", out / "rows.csv")
    ran = cli(main, clip, *map(str, named), *files)
    assert ran.code == 0, ran.err
    paths = [out / "out.mp4", out / "rows.csv", *sorted((out / "maps").glob("*.png"))]
    return {path.name: path.read_bytes() for path in paths}, arrays_of(out / "raw.npz"), ran.err


@pytest.mark.usefixtures("steady_x264")
@pytest.mark.parametrize("kind", MODELS)
def test_salema_run_writes_what_it_writes_on_the_cpu(kind, cli, small_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(trt_session, "open_engine", open_engine)
    before, model = kernels_run(), ("--model", folder_of(kind), "--backend")
    expected, wanted, _ = written_by(cli, small_clip, tmp_path / "cpu", *model, "onnxruntime", "--device", "cpu")
    assert kernels_run() == before
    found, raw, told = written_by(cli, small_clip, tmp_path / "gpu", *model, "tensorrt-rtx", "--device", "cuda:1")
    assert kernels_run() > before
    assert "on host driver 1, CUDA graphs" in told
    assert found == expected
    assert len(found) == 14
    assert raw.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(raw[name], value)


def test_pictures_on_a_gpu_that_shares_the_hosts_memory():
    set_integrated(True)
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    with open_constants() as session:
        stream = SaliencyStream(session)
        for _ in range(3):
            pictures = stream.picture(frame, Look("map"))
            np.testing.assert_array_equal(pictures.image_bgr, render(frame, to_grey(SALIENCY), Look("map")))
    set_integrated(False)


def test_places_of_a_batch_draw_from_threads_of_their_own():
    """Each has its own size; they share one engine, whose step and all pictures are recorded together."""
    session, looks = open_constants(), [Look("overlay"), Look("map"), Look(None)]

    def run(batch, number):
        rng, look = np.random.default_rng(number), looks[number]
        with batch.take_place() as place:
            for state in states_after(8):
                frame = rng.integers(0, 256, (48 + 30 * number, 64, 3), dtype=np.uint8)
                pictures = place.picture(frame, look)
                np.testing.assert_array_equal(pictures.grey, to_grey(SALIENCY))
                if look.view is not None:
                    np.testing.assert_array_equal(pictures.image_bgr, render(frame, pictures.grey, look))
                np.testing.assert_array_equal(place.snapshot()["ema30"][0], state)
                del pictures

    with StreamBatch(SaliencyStream(session, 3), 5000) as batch, ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(run, batch, number) for number in range(3)]:
            done.result()
        assert 1 <= len(session._graphs) <= 3  # one for each set of places that had come


def in_threads(work, count=1):
    """Runs it in so many threads at once, and waits for them; an error of one is raised here."""
    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(work) for _ in range(count)]:
            done.result()


def test_sessions_in_threads_of_their_own():
    def run():
        with open_constants() as session, SaliencyStream(session) as stream:
            for _ in range(5):
                stream.reset()
                step_and_check(stream, 6)

    in_threads(run, 3)


def test_one_session_in_several_threads_and_closed_in_another():
    session = open_constants()
    stream = SaliencyStream(session)
    in_threads(lambda: step_and_check(stream))
    stream.reset()
    step_and_check(stream)
    in_threads(session.close)


def test_another_thread_may_take_memory_while_this_one_records():
    device, other = CudaDevice(), CudaDevice()

    def take():
        with other.active():
            buffer = other.allocate(64)
            other.synchronize()
            buffer.free()

    with device.active():
        buffer = device.allocate(512)
        host, _ = device.allocate_host(512, mapped=False)
        host[:] = np.arange(512) // 2
        device.upload(buffer.address, host)
        device.synchronize()

        def work():
            in_threads(take)
            device.copy(buffer.address, buffer.address + 256, 256)

        graph = device.capture(work)
        device.launch(graph)
        device.download(host, buffer.address)
        device.synchronize()
        np.testing.assert_array_equal(host, np.tile(np.arange(256, 512) // 2, 2))
        del host
        del graph
        buffer.free()
    device.close()
    other.close()


def close_session(session):
    session.close()


def drop(session):
    """Leaves it to Python."""


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
@pytest.mark.parametrize("end", [close_session, drop])
def test_sessions_of_two_gpus_close_in_every_order(order, end):
    sessions = {number: open_constants(index) for number, index in enumerate((0, 0, 1))}
    for session in sessions.values():
        step_and_check(SaliencyStream(session), 3)
    for number in order:
        end(sessions.pop(number))
        gc.collect()
        for session in sessions.values():
            step_and_check(SaliencyStream(session), 3)


def test_handles_and_buffers_may_outlive_their_session():
    session = open_constants()
    stream = SaliencyStream(session)
    step_and_check(stream)
    states = session.from_host(stream.snapshot())
    session.close()
    session.close()
    del states, stream


def test_too_little_memory_ends_a_step_and_not_the_session():
    frame = np.zeros((480, 640, 3), np.uint8)
    with open_constants() as session:
        stream = SaliencyStream(session)
        step_and_check(stream)
        set_memory(1 << 20)
        with pytest.raises(BackendError, match="there is too little free memory on the GPU"):
            stream.picture(frame, Look("overlay"))
        set_memory(4 << 30)
        assert stream.picture(frame, Look("overlay")).image_bgr.shape == frame.shape
        stream.reset()
        step_and_check(stream)


LEFT_OPEN = """
from host_driver import plugin
plugin.pytest_configure()
from host_driver.constants import open_constants, step_and_check
from salema.runtime.stream import SaliencyStream
streams = [SaliencyStream(open_constants(index)) for index in (0, 0, 1)]
for stream in streams:
    step_and_check(stream)
{then}
"""


@pytest.mark.parametrize(("then", "code"), [("", 0), ("raise SystemExit(3)", 3)])
def test_open_sessions_are_closed_when_python_ends(then, code):
    command = [sys.executable, "-c", LEFT_OPEN.format(then=then)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (code, "", "")
