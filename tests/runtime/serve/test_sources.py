"""The server's own sources: their maps, their pictures, who watches them, and their losses."""

import http.client
import itertools
import json
import re
import shutil
import socket as sockets
import statistics
import threading
import time

import av
import cv2
import numpy as np
import pytest
from rtsp import RtspServer
from serving import HOST, image_of, raw_map, result, serving, settings, until
from videos import write_clip
from websockets.exceptions import ConnectionClosed

from salema.export.weights.seeded import moving_disc
from salema.runtime import load
from salema.runtime.postprocess import Look, render, to_grey
from salema.runtime.serve import source_streams
from salema.runtime.serve.results import Result
from salema.runtime.serve.source_streams import SourceStream
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import Source

NEXT = json.dumps({"type": "next"})


@pytest.fixture(scope="module")
def frames(small_clip):
    with av.open(str(small_clip)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def expected(model, frames):
    with load(model) as stream:
        return [stream.step(frame) for frame in frames]


@pytest.fixture(scope="module")
def whole(model, small_clip):
    """A server that runs every frame of its source, in a loop."""
    with serving(model, small_clip, selection=Selection(every_frame=True)) as one:
        yield one


def test_every_frame_has_the_map_of_a_run_and_the_loop_begins_anew(whole, expected):
    """What is watched skips frames where the viewer is late; each result has its frame's number."""
    seen = set()
    with whole.connect("/api/sources/0/live") as socket:
        socket.send(settings(form="float16"))
        while len(seen) < len(expected):
            socket.send(NEXT)
            header, payload = result(socket)
            index = (header["frame"] - 1) % len(expected)
            assert header["starts_anew"] == (index == 0)
            np.testing.assert_allclose(raw_map(header, payload), expected[index], rtol=2**-11)
            seen.add(index)
    (facts,) = whole.ask("/api/status").json["sources"]
    assert facts["dropped"] == 0
    assert 10 < facts["fps"] < 60  # it plays at 25, and catches up after a stall; unpaced it would be hundreds


def test_snapshots_are_the_newest_result(whole, frames, expected):
    for query, check in {
        "map": lambda body, index: np.testing.assert_array_equal(image_of(body), to_grey(expected[index])),
        "map?form=float16": lambda body, index: np.testing.assert_allclose(
            np.frombuffer(body, "<f2").reshape(64, 96), expected[index], rtol=2**-11
        ),
        "picture?colormap=hot&opacity=0.7": lambda body, index: _is_like(
            image_of(body), render(frames[index], to_grey(expected[index]), Look(colormap="hot", opacity=0.7))
        ),
        "picture?opacity=0": lambda body, index: _is_like(image_of(body), frames[index]),
    }.items():
        answer = whole.ask(f"/api/sources/0/{query}")
        assert answer.status == 200
        check(answer.body, (int(answer.headers["X-Frame"]) - 1) % len(expected))


def _is_like(image, wanted):
    assert cv2.PSNR(image, wanted) > 25


def parts(port, query, count):
    """Reads so many pictures of a MJPEG stream as a browser does: by their lengths."""
    connection = http.client.HTTPConnection(HOST, port, timeout=20)
    connection.request("GET", f"/api/sources/0/mjpeg{query}")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=salema"
    for _ in range(count):
        assert answer.readline() == b"--salema\r\n"
        assert answer.readline() == b"Content-Type: image/jpeg\r\n"
        size = int(re.fullmatch(rb"Content-Length: (\d+)\r\n", answer.readline())[1])
        assert answer.readline() == b"\r\n"
        yield image_of(answer.read(size))
        assert answer.readline() == b"\r\n"
    connection.close()


def test_mjpeg_gives_picture_after_picture(whole, frames, expected):
    wanted = [render(frame, to_grey(raw), Look("side-by-side")) for frame, raw in zip(frames, expected, strict=True)]
    found = [
        max(range(len(wanted)), key=lambda index: cv2.PSNR(image, wanted[index]))
        for image in parts(whole.port, "?view=side-by-side", 8)
    ]
    steps = [(after - before) % len(wanted) for before, after in itertools.pairwise(found)]
    assert 0 not in steps
    assert statistics.median(steps) <= 4  # the order of the clip; a late reader gets fewer
    deadline = time.monotonic() + 10
    while whole.service.metrics.viewers._value.get() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert whole.service.metrics.viewers._value.get() == 0


def test_a_viewer_gets_the_newest_and_no_queue(whole):
    """Ten asks at once, of which some are too many, and a pause: what is asked for then is the newest."""
    with whole.connect("/api/sources/0/live") as socket:
        for _ in range(10):
            socket.send(NEXT)
        time.sleep(1)
        early = []
        with pytest.raises(TimeoutError):
            while True:
                early.append(result(socket, 0.3)[0]["frame"])
        now = whole.service.sources[0].stream.latest.item.number
        socket.send(NEXT)
        late = result(socket)[0]["frame"]
    assert early == sorted(set(early))
    assert 4 <= len(early) <= 6  # four asks wait, and one or two are being answered
    assert early[-1] - early[0] < 15
    assert now <= late <= now + 3
    assert late > early[-1] + 10


def test_a_new_look_is_drawn_anew_where_a_source_stands_still(model, small_clip):
    """The network hangs: no new frame comes, and what is there is drawn once more for each look."""
    with serving(model, small_clip) as one, one.connect("/api/sources/0/live") as socket:
        place, goes_on = one.service.sources[0].stream._place, threading.Event()
        step = place.step
        place.step = lambda frame: goes_on.wait(20) and step(frame)
        time.sleep(0.3)
        shown = {}
        for opacity in (0, 1, 0):
            socket.send(settings(opacity=opacity))
            socket.send(NEXT)
            header, payload = result(socket, 5)
            shown[opacity] = payload
        assert header["frame"] == one.service.sources[0].stream.latest.item.number
        assert shown[0] != shown[1]
        socket.send(NEXT)
        with pytest.raises(TimeoutError):
            socket.recv(0.3)  # the same look again: nothing new
        socket.send(settings(opacity=1))
        assert result(socket, 5)[1] == shown[1]  # and what was asked for is in the new look
        socket.send(NEXT)
        goes_on.set()
        assert result(socket)[0]["frame"] > header["frame"]


def test_a_slow_network_drops_frames_of_a_source(model, small_clip):
    with serving(model, small_clip) as one:
        place, took_s = one.service.sources[0].stream._place, []
        step = place.step

        def slow(frame):
            begun_s = time.monotonic()
            time.sleep(0.15)
            made = step(frame)
            took_s.append(time.monotonic() - begun_s)
            return made

        place.step = slow
        facts = lambda: one.ask("/api/status").json["sources"][0]  # noqa: E731
        until(lambda: len(took_s) > 9 and facts()["dropped"] > 10)
        found = facts()
    assert found["fps"] < 15
    assert found["latency_p50_ms"] < 3000 * statistics.median(took_s)  # the newest each time: no queue grows


def test_a_lost_camera_comes_back(model):
    server = RtspServer(moving_disc(8, 64, 96))
    try:
        with serving(model, server.url) as one:
            facts = one.ask("/api/status").json["sources"][0]
            assert (facts["state"], facts["source"]) == ("playing", server.url.replace("user:secret@", ""))
            server.cut_off()
            deadline = time.monotonic() + 20
            while not any("back after" in note for note in one.notes) and time.monotonic() < deadline:
                time.sleep(0.05)
            number = one.service.sources[0].stream.latest.item.number
            while one.service.sources[0].stream.latest.item.number == number and time.monotonic() < deadline:
                time.sleep(0.05)
            assert one.ask("/api/status").json["sources"][0]["state"] == "playing"
            assert "lost after" in one.notes[0]
            assert not any("secret" in note for note in one.notes)
    finally:
        server.close()


def test_of_several_sources_one_may_fail(model, small_clip, tmp_path):
    with serving(model, tmp_path / "missing.mp4", small_clip) as one:
        broken, good = one.ask("/api/status").json["sources"]
        assert (broken["state"], broken["problem"]) == ("lost", f"{tmp_path / 'missing.mp4'}: no such video file")
        assert good["state"] == "playing"
        assert one.ask("/api/sources/0/picture").status == 503
        assert one.ask("/api/sources/1/picture").status == 200
        assert one.ask("/readyz").status == 200
        assert one.notes == [broken["problem"]]


def test_a_file_that_comes_later_is_found(model, small_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(source_streams, "_FIRST_WAIT_S", 0.05)
    with serving(model, tmp_path / "late.mp4", small_clip) as one:
        late = one.service.sources[0]
        assert late.settled.wait(10)
        assert (late.state, late.problem) == ("lost", f"{tmp_path / 'late.mp4'}: no such video file")
        shutil.copy(small_clip, tmp_path / "part")
        (tmp_path / "part").rename(tmp_path / "late.mp4")
        deadline = time.monotonic() + 10
        while late.state != "playing" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (late.state, late.problem, late.source.name) == ("playing", "", "late")


def test_a_source_that_is_over_ends_its_watchers_and_a_server_that_stops_says_come_again(
    model, small_clip, monkeypatch
):
    monkeypatch.setenv("PATH", "")
    with serving(model, "videotestsrc ! autovideosink", small_clip) as one:
        over = one.service.sources[0]
        assert over.settled.wait(10)
        with one.connect("/api/sources/0/live") as socket, one.connect("/api/sources/1/live") as other:
            socket.send(NEXT)
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(10)
            assert closed.value.rcvd.code == 1000
            assert over.problem.startswith(closed.value.rcvd.reason)
            assert "gst-launch" in closed.value.rcvd.reason
            one.stop.set()
            other.send(NEXT)
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    other.recv(10)
            assert closed.value.rcvd.code == 1012


def test_a_frame_from_before_a_loss_does_not_end_it(served):
    stream = served.service.sources[0].stream
    one = SourceStream(Source("camera", "0", "camera0"), stream, Selection(), lambda _: None)
    before_s = time.monotonic()
    one._lost("camera0: lost")
    one._playing(before_s)
    assert (one.state, one.problem) == ("lost", "camera0: lost")
    one._playing(time.monotonic())
    assert (one.state, one.problem) == ("playing", "")


def test_a_reader_of_mjpeg_who_stops_is_sent_no_more(model, tmp_path, monkeypatch):
    """What the buffers hold is all that is made for it, however many frames come."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 360, 640, 3), np.uint8)
    made, encoded = [], Result.encoded
    monkeypatch.setattr(Result, "encoded", lambda *what: made.append(what[0].number) or encoded(*what))
    with serving(model, write_clip(tmp_path / "noise.mp4", noise, rate=50)) as one, sockets.socket() as narrow:
        narrow.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 1 << 14)
        narrow.connect((HOST, one.port))
        narrow.sendall(b"GET /api/sources/0/mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        latest = one.service.sources[0].stream.latest
        until(lambda: made)
        seen = made[0]
        until(lambda: latest.item.number > seen + 60)
        before = len(made)
        assert before < 20
        until(lambda: latest.item.number > seen + 90)
        assert len(made) == before  # it waits
        while len(made) == before:  # until the reader goes on: then it gets the newest
            assert narrow.recv(1 << 20)
        assert made[-1] > seen + 90
