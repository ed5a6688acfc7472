"""What one client may not do: each limit, and what the others notice of it."""

import asyncio
import gc
import http.client
import json
import socket as sockets
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest
from serving import HOST, image_of, jpeg, result, serving, settings, until
from websockets.exceptions import ConnectionClosed

from salema.runtime.cpu import usable_cores
from salema.runtime.errors import UsageError
from salema.runtime.postprocess import Look
from salema.runtime.serve.limits import Limits
from salema.runtime.serve.results import Result
from salema.runtime.serve.server import _Sweep

RESET = json.dumps({"type": "reset"})
NEXT = json.dumps({"type": "next"})


def closed_with(socket, timeout=10):
    """The code and reason with which the server closes a WebSocket; results before it are passed over."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            socket.recv(timeout)
    return closed.value.rcvd.code, closed.value.rcvd.reason


@pytest.fixture(scope="module")
def tight(model, small_clip):
    limits = Limits(max_mb=0.1, max_megapixels=0.5, max_fps=10, max_streams=2, max_viewers=2)
    with serving(model, small_clip, limits=limits) as one:
        yield one


@pytest.fixture(scope="module")
def hasty(model, small_clip):
    with serving(model, small_clip, limits=Limits(idle_s=1)) as one:
        yield one


@pytest.mark.parametrize("name", list(Limits.__dataclass_fields__))
def test_a_limit_is_above_nothing(name):
    for value in (0, -1, float("nan"), float("inf"), 1e7):
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} .*give a number above 0"):
            Limits(**{name: value})


def test_a_message_too_large_ends_its_connection_only(tight, disc):
    with tight.connect() as socket, tight.connect() as other:
        socket.send(bytes(100_001))
        assert closed_with(socket)[0] == 1009
        other.send(jpeg(disc[0]))
        assert result(other)[0]["frame"] == 1


def test_an_upload_too_large_is_refused_by_what_it_says_or_by_what_it_is(tight):
    assert tight.ask("/api/image", "POST", b"", Content_Length="100001").status == 413
    answer = tight.ask("/api/image", "POST", iter([bytes(60_000)] * 2), Transfer_Encoding="chunked")
    assert (answer.status, answer.json["detail"]) == (413, "more than 100000 bytes (--max-mb)")


def bomb():
    """A PNG of 100 kB at most that unfolds to 64000x64000 pixels, by its header."""
    head = struct.pack(">IIBBBBB", 64000, 64000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(64001))), (b"IEND", b"")]
    whole = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        whole += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return whole


def test_pixels_are_counted_before_they_are_unfolded(tight):
    with tight.connect() as socket:
        for data in (bomb(), jpeg(np.zeros((800, 800, 3), np.uint8))):
            socket.send(data)
            error = result(socket)[0]["error"]
            assert error.endswith("; 0.5 megapixels are the most")
        socket.send(settings(bgr_hw=(800, 800)))
        code, reason = closed_with(socket)
        assert (code, reason[:22]) == (1003, "bgr_hw [800, 800]: giv")
    assert tight.ask("/api/image", "POST", bomb()).status == 422


def test_places_are_given_back(tight, disc):
    with tight.connect() as one, tight.connect() as other:
        for socket in (one, other):
            socket.send(jpeg(disc[0]))
            result(socket)
        with tight.connect() as third:
            assert closed_with(third) == (1013, "2 clients send frames already; try again later (--max-streams)")
        answer = tight.ask("/api/image", "POST", jpeg(disc[0]))
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    until(lambda: tight.service.metrics.streams._value.get() == 0)
    assert tight.ask("/api/image", "POST", jpeg(disc[0])).status == 200


def test_frames_beyond_the_rate_are_dropped_and_counted(tight, disc):
    frame, begun_s = jpeg(disc[0]), time.monotonic()
    with tight.connect() as socket:
        for _ in range(36):
            socket.send(frame)
        header = result(socket)[0]
        while header["frame"] < 36:
            header = result(socket)[0]
    assert header["frames"] + header["dropped"] == 36
    assert header["frames"] <= 11 + 10 * (time.monotonic() - begun_s)  # a second's worth at once, and ten a second
    assert 'salema_dropped_frames_total{reason="rate",stream="clients"}' in tight.ask("/metrics").body.decode()


def test_a_flood_is_read_no_faster_than_allowed(tight, disc):
    """Forty messages at once, forty a second after that: the rest waits with the client."""
    with tight.connect() as socket:
        start = time.monotonic()
        for _ in range(79):
            socket.send(RESET)
        socket.send(jpeg(disc[0]))
        assert result(socket)[0]["frame"] == 1
        assert time.monotonic() - start > 0.8


def test_images_beyond_the_rate_are_refused(tight, disc):
    answers = [tight.ask("/api/image", "POST", jpeg(disc[0])) for _ in range(16)]
    refused = next(answer for answer in answers if answer.status != 200)
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert refused.json["detail"] == "more than 10 images a second; send fewer"
    assert [answer.status for answer in answers[:8]] == [200] * 8


def test_viewers_are_counted(tight):
    with ExitStack() as stack:
        sockets_ = [stack.enter_context(tight.connect("/api/sources/0/live")) for _ in range(2)]
        for socket in sockets_:
            socket.send(NEXT)
            result(socket)
        with tight.connect("/api/sources/0/live") as third:
            assert closed_with(third) == (1013, "2 clients watch already; try again later (--max-viewers)")
        assert tight.ask("/api/sources/0/mjpeg").status == 503
        assert tight.ask("/api/sources/0/picture").status == 503
        assert tight.ask("/api/sources/0/map").status == 503
    until(lambda: tight.service.metrics.viewers._value.get() == 0)


def test_silent_clients_are_let_go(hasty):
    with hasty.connect("/api/stream") as one, hasty.connect("/api/sources/0/live") as other:
        for socket in (one, other):
            assert closed_with(socket) == (1008, "nothing for 1 s (--idle-s)")


def test_an_upload_that_stops_is_given_up(hasty):
    connection = http.client.HTTPConnection(HOST, hasty.port, timeout=20)
    connection.putrequest("POST", "/api/image")
    connection.putheader("Content-Length", "1000")
    connection.endheaders()
    connection.send(b"some of it")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["detail"]) == (408, "the body did not come within 1 s")
    connection.close()


def test_requests_that_never_end_are_cut_off(hasty):
    with ExitStack() as stack:
        unended = []
        for sent in (b"", b"GET / HT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT"):
            unended.append(stack.enter_context(sockets.create_connection((HOST, hasty.port), timeout=20)))
            unended[-1].sendall(sent)
        for raw in unended:
            with pytest.raises(ConnectionResetError):
                while raw.recv(65536):
                    pass
                raise ConnectionResetError  # closed in order, which is as good


def test_a_slow_client_gets_the_newest_and_not_all(model):
    """It sends frames and reads nothing: the network goes on, and the last result that it reads is the newest."""
    frame = jpeg(np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8))
    narrow = sockets.socket()
    narrow.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 1 << 14)
    with serving(model, limits=Limits(max_fps=1000)) as one:
        narrow.connect((HOST, one.port))
        with one.connect(sock=narrow, max_queue=1) as socket:
            sent, deadline = 0, time.monotonic() + 20
            while one.service.metrics.frames.labels("clients")._value.get() <= 100:  # the network goes on
                socket.send(frame)
                sent += 1
                time.sleep(0.005)
                assert time.monotonic() < deadline
            numbers, sizes = [], []
            while not numbers or numbers[-1] < sent:
                header, payload = result(socket)
                numbers.append(header["frame"])
                sizes.append(len(payload))
                assert image_of(payload).shape == (360, 640, 3)
    assert numbers == sorted(numbers)
    assert sum(sizes) < 1.5e6  # what the buffers held: no more has waited
    assert len(numbers) < 30


def test_of_frames_that_come_too_soon_the_last_is_answered(tight, disc):
    """So a page that waits for it goes on. It takes over the reset of those between."""
    with tight.connect() as socket:
        for number in range(1, 15):
            if number == 12:
                socket.send(RESET)
            socket.send(jpeg(disc[0]))
        while (header := result(socket, 5)[0])["frame"] < 14:
            pass
        assert (header["frames"] + header["dropped"], header["starts_anew"]) == (14, True)


def test_less_than_one_frame_a_second(model, disc):
    with serving(model, limits=Limits(max_fps=0.2)) as one, one.connect() as socket:
        socket.send(jpeg(disc[0]))
        assert result(socket)[0]["frame"] == 1
        assert one.ask("/api/image", "POST", jpeg(disc[0])).status == 200
        assert one.ask("/api/image", "POST", jpeg(disc[0])).json["detail"] == (
            "more than 0.2 images a second; send fewer"
        )


def test_images_hold_up_no_picture_and_those_beyond_are_refused_unread(model, small_clip, disc):
    count, goes_on = usable_cores() + 1, threading.Event()
    limits = Limits(max_streams=count, max_fps=100)
    with serving(model, small_clip, limits=limits) as one, ThreadPoolExecutor(count) as pool:
        step = one.service.step_image
        one.service.step_image = lambda *image: goes_on.wait(20) and step(*image)
        answers = [pool.submit(one.ask, "/api/image", "POST", jpeg(disc[0])) for _ in range(count)]
        until(lambda: one.service.metrics.streams._value.get() == count)
        assert one.ask("/api/sources/0/picture?opacity=0.1").status == 200
        connection = http.client.HTTPConnection(HOST, one.port, timeout=5)
        connection.putrequest("POST", "/api/image")
        connection.putheader("Content-Length", "1000")
        connection.endheaders()  # and no body
        assert connection.getresponse().status == 503
        connection.close()
        goes_on.set()
        assert [answer.result().status for answer in answers] == [200] * count


def test_encodings_of_a_result_are_few():
    levels = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    edges = dict.fromkeys(("frame", "running", "none"), (np.float32(0), np.float32(1)))
    one = Result(1, np.zeros((8, 8, 3), np.uint8), levels, edges, starts_anew=True, latency_ms=1)
    made = [one.encoded("jpeg", Look(opacity=share / 100)) for share in range(20)]
    assert len(one._encoded) == 8
    assert one.encoded("jpeg", Look(opacity=0.19)) is made[-1]
    assert one.encoded("jpeg", Look(opacity=0)) == made[0]


class _Connection(SimpleNamespace):
    __hash__ = object.__hash__


def test_a_connection_is_idle_only_from_its_last_request_on(monkeypatch):
    """Sweeps that all fall between requests do not cut off a client that goes on asking."""
    now, sweep, ended = [0.0], _Sweep(5), []
    monkeypatch.setattr("salema.runtime.serve.server.time", SimpleNamespace(monotonic=lambda: now[0]))
    one = _Connection(cycle=None, transport=SimpleNamespace(abort=lambda: ended.append(now[0])))
    sweep.connections = lambda: [one]
    for now[0] in range(1, 20):
        if now[0] <= 10:
            one.cycle = _Connection(response_complete=True)  # another request, answered since the last sweep
        asyncio.run(sweep())
    assert ended[0] == 16


def test_what_was_loaded_is_not_looked_through_for_garbage_while_it_serves(model):
    """A collection of all objects of the libraries halts every thread, and with them all clients."""
    gc.unfreeze()
    with serving(model) as one:
        assert one.ask("/healthz").status == 200
        assert gc.get_freeze_count() > 50_000
        assert len(gc.get_objects()) < gc.get_freeze_count()
