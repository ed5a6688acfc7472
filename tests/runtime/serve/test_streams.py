"""A client's own stream: its maps are those of `load`, its state is its own."""

import json
import re
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from serving import image_of, jpeg, raw_map, result, serving, settings

from salema.runtime import load
from salema.runtime.postprocess import Look, render, to_grey, to_levels
from salema.runtime.preprocess import to_network_size
from salema.runtime.serve.limits import Limits

RESET = json.dumps({"type": "reset"})


@pytest.fixture(scope="module")
def expected(model, disc):
    """The raw maps of the four frames, and of the JPEGs that are sent of them."""
    with load(model) as stream:
        raw = [stream.step(frame) for frame in disc]
        stream.reset()
        return raw, [stream.step(image_of(jpeg(frame))) for frame in disc]


def test_raw_frames_give_the_maps_of_load(served, disc, expected):
    with served.connect() as socket:
        socket.send(settings(form="float16", bgr_hw=disc.shape[1:3]))
        for number, (frame, wanted) in enumerate(zip(disc, expected[0], strict=True), 1):
            socket.send(frame.tobytes())
            header, payload = result(socket)
            assert (header["frame"], header["form"], header["dropped"]) == (number, "float16", 0)
            assert header["starts_anew"] == (number == 1)
            assert header["range"] == [float(wanted.min()), float(wanted.max())]
            np.testing.assert_allclose(raw_map(header, payload), wanted, rtol=2**-11, atol=2**-25)


def test_jpegs_give_published_maps_as_png(served, disc, expected):
    with served.connect() as socket:
        socket.send(settings(form="png"))
        for frame, wanted in zip(disc, expected[1], strict=True):
            socket.send(jpeg(frame))
            header, payload = result(socket)
            assert header["mime"] == "image/png"
            np.testing.assert_array_equal(image_of(payload), to_grey(wanted))


def test_a_picture_is_drawn_as_asked(served, disc, expected):
    look = Look("side-by-side", "none", "turbo", 0.25)
    with served.connect() as socket:
        socket.send(settings(view=look.view, normalise="none", colormap="turbo", opacity=0.25, bgr_hw=(64, 96)))
        socket.send(disc[0].tobytes())
        header, payload = result(socket)
    assert header["form"] == "jpeg"
    wanted = render(disc[0], to_levels(expected[0][0], (np.float32(0), np.float32(1))), look)
    assert image_of(payload).shape == (64, 192, 3)
    assert cv2.PSNR(image_of(payload), wanted) > 30


def test_a_large_picture_is_made_smaller(served):
    with served.connect() as socket:
        socket.send(jpeg(np.full((720, 2560, 3), 90, np.uint8)))
        assert image_of(result(socket)[1]).shape == (360, 1280, 3)


def test_reset_begins_anew_and_states_are_apart(served, disc, expected):
    raw = expected[0]
    with served.connect() as one, served.connect() as other:
        for socket in (one, other):
            socket.send(settings(form="float16", bgr_hw=(64, 96)))
        steps = [(one, 0), (other, 0), (one, 1), (other, 1), (other, 2), (one, 2)]
        for socket, index in steps:
            socket.send(disc[index].tobytes())
            np.testing.assert_allclose(raw_map(*result(socket)), raw[index], rtol=2**-11)
        one.send(RESET)
        for index in (0, 1):
            one.send(disc[index].tobytes())
            np.testing.assert_allclose(raw_map(*result(one)), raw[index], rtol=2**-11)
        other.send(disc[3].tobytes())
        np.testing.assert_allclose(raw_map(*result(other)), raw[3], rtol=2**-11)


def test_another_size_begins_anew(served, disc, model):
    small = np.ascontiguousarray(disc[1][:48, :80])
    with load(model) as stream:
        wanted = stream.step(small)
    with served.connect() as socket:
        socket.send(settings(form="float16"))
        for image, starts_anew in ((disc[0], True), (disc[1], False), (small, True), (small, False)):
            socket.send(cv2.imencode(".png", image)[1].tobytes())
            header, payload = result(socket)
            assert header["starts_anew"] == starts_anew
            if image is small and starts_anew:
                np.testing.assert_allclose(raw_map(header, payload), wanted, rtol=2**-11)


def test_one_image_over_http_is_a_first_frame(served, disc, expected):
    for _ in range(2):
        answer = served.ask("/api/image?form=float16", "POST", jpeg(disc[0]))
        assert answer.status == 200
        shape = [int(answer.headers[f"X-Map-{side}"]) for side in ("Height", "Width")]
        np.testing.assert_allclose(np.frombuffer(answer.body, "<f2").reshape(shape), expected[1][0], rtol=2**-11)
    answer = served.ask("/api/image?form=png", "POST", jpeg(disc[0]))
    np.testing.assert_array_equal(image_of(answer.body), to_grey(expected[1][0]))
    answer = served.ask("/api/image?view=map", "POST", jpeg(disc[0]))
    assert answer.headers["Content-Type"] == "image/jpeg"
    grey = cv2.resize(to_grey(expected[1][0]), (96, 64))
    assert cv2.PSNR(cv2.cvtColor(image_of(answer.body), cv2.COLOR_BGR2GRAY), grey) > 30


def test_a_damaged_frame_is_told_and_the_stream_goes_on(served, disc, expected):
    with served.connect() as socket:
        socket.send(settings(form="float16", bgr_hw=(64, 96)))
        socket.send(disc[0].tobytes())
        assert result(socket)[0]["frame"] == 1
        socket.send(b"no frame")
        error, _ = result(socket)
        assert (error["frame"], error["error"]) == (
            2,
            f"a raw frame of 8 bytes; {64 * 96 * 3} bytes make a BGR frame of 64x96 (height x width)",
        )
        socket.send(disc[1].tobytes())
        np.testing.assert_allclose(raw_map(*result(socket)), expected[0][1], rtol=2**-11)


def test_the_network_sees_what_salema_run_sees(served, disc, model):
    """A frame of another size than the network's is resized as `salema-run` does."""
    large = cv2.resize(disc[2], (333, 222))
    with load(model) as stream:
        wanted = stream.infer(to_network_size(large, 64, 96)[None])[0]
    with served.connect() as socket:
        socket.send(settings(form="float16", bgr_hw=(222, 333)))
        socket.send(large.tobytes())
        np.testing.assert_allclose(raw_map(*result(socket)), wanted, rtol=2**-11)


def test_the_client_of_the_documentation(served, disc, expected, monkeypatch):
    text = (Path(__file__).parents[3] / "docs/serve.md").read_text("utf-8")
    (code,) = re.findall(r"(?ms)^```py\n(.*?)^```$", text)
    assert "127.0.0.1:8008" in code
    scope = {"jpegs": [jpeg(frame) for frame in disc]}
    exec(code.replace("8008", str(served.port)), scope)
    np.testing.assert_allclose(scope["saliency"], expected[1][-1], rtol=2**-11)


def test_a_reset_outlives_the_frames_that_are_dropped_or_refused(model, disc, expected):
    """The place is busy while frames come; the first one after the reset is lost, and the next begins anew."""
    with serving(model, limits=Limits(max_fps=1000)) as one, one.connect() as socket:
        socket.send(settings(form="float16", bgr_hw=(64, 96)))
        socket.send(disc[3].tobytes())
        assert result(socket)[0]["starts_anew"]
        (client,) = one.service._clients
        place, entered, gate = client._stream._place, threading.Event(), threading.Semaphore(0)
        step = place.step
        place.step = lambda frame: entered.set() or (gate.acquire(timeout=10) and step(frame))
        socket.send(disc[2].tobytes())
        assert entered.wait(10)
        for message in (RESET, b"no frame", *(frame.tobytes() for frame in disc[:2])):
            socket.send(message)  # the first of the frames drops the refused one, and is dropped
        until = time.monotonic() + 10
        while client._count < 5 and time.monotonic() < until:
            time.sleep(0.01)
        assert client._count == 5
        gate.release()
        assert result(socket)[0]["frame"] == 2
        gate.release()
        header, payload = result(socket)
        assert (header["frame"], header["starts_anew"], header["dropped"]) == (5, True, 2)
        place.step = step
        socket.send(RESET)
        socket.send(b"no frame")
        assert "error" in result(socket)[0]
        for index in (0, 1):
            socket.send(disc[index].tobytes())
            header, payload = result(socket)
            assert header["starts_anew"] == (index == 0)
            np.testing.assert_allclose(raw_map(header, payload), expected[0][index], rtol=2**-11)
