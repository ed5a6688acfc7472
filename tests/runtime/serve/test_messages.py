"""Messages that are wrong in any way: one sentence, and the server goes on."""

import json
import random
import socket as sockets
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import HOST, jpeg, raw_map, result, serving, settings, until
from websockets.exceptions import ConnectionClosed

from salema.runtime.cpu import usable_cores
from salema.runtime.errors import SalemaError, VideoError
from salema.runtime.serve import protocol
from salema.runtime.serve.limits import Limits
from salema.runtime.serve.protocol import Settings, decoded, packed, read_message, unpacked

WRONG = {
    "": "message: Invalid JSON: EOF while parsing a value at line 1 column 0",
    "[]": "message: Input should be",
    '{"type": "dance"}': "message: type: Input should be 'settings', 'reset', 'next' or 'token'",
    '{"type": "settings", "opacity": "much"}': "message: opacity: Input should be a valid number",
    '{"type": "settings", "opacity": 2}': "--opacity 2: give a number from 0 to 1",
    '{"type": "settings", "opacity": NaN}': "--opacity nan: give a number from 0 to 1",
    '{"type": "settings", "colormap": "brown"}': "--colormap brown: not one of autumn, bone",
    '{"type": "settings", "colour": "jet"}': "message: colour: Unexpected keyword argument",
    '{"type": "settings", "bgr_hw": [0, 5]}': "bgr_hw [0, 5]: give a frame's height and width",
    '{"type": "settings", "bgr_hw": [99999, 99999]}': "bgr_hw [99999, 99999]: give a frame's height",
    '{"type": "settings", "bgr_hw": [1.5, 2]}': "message: bgr_hw.0: Input should be a valid integer",
    '{"type": "next"}': "type next: not for this socket",
    '{"type": "token", "token": "x"}': "type token: not for this socket",
    "[" * 4000: "message: Invalid JSON: recursion limit exceeded",
    "x" * 4097: "a text message of 4097 characters; 4096 are the most",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_text_ends_the_connection_with_a_sentence(served, text):
    with served.connect() as socket:
        socket.send(text)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
    assert closed.value.rcvd.code == 1003
    assert closed.value.rcvd.reason.startswith(WRONG[text])


@pytest.mark.parametrize("path", ["/api/sources/1/live", "/api/sources/-1/live"])
def test_a_source_that_is_not_there(served, path):
    with served.connect(path) as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv(10)
    assert closed.value.rcvd.reason.startswith("source ")
    assert closed.value.rcvd.reason.endswith(": there are 1, from 0 on")


def test_a_source_takes_no_frames(served, disc):
    with served.connect("/api/sources/0/live") as socket:
        socket.send(jpeg(disc[0]))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
    assert closed.value.rcvd.reason == "frames are for /api/stream; this source is the server's own"


def test_queries_that_are_wrong(served):
    for query, sentence in {
        "picture?view=x": "query.view: Input should be 'overlay', 'map' or 'side-by-side'",
        "picture?opacity=nan": "--opacity nan: give a number from 0 to 1",
        "picture?colormap=x": "--colormap x: not one of autumn,",
        "map?form=jpeg": "form=jpeg: a map is png or float16",
    }.items():
        answer = served.ask(f"/api/sources/0/{query}")
        assert answer.status == 422
        assert answer.json["detail"].startswith(sentence)
    assert served.ask("/api/sources/5/map").status == 404
    assert served.ask("/api/sources/x/map").status == 422
    assert served.ask("/api/image", "POST", b"").status == 422
    assert served.ask("/api/status", "DELETE").status == 405


@given(st.dictionaries(st.text(), st.none() | st.floats() | st.text() | st.booleans() | st.integers()), st.binary())
def test_a_packed_message_is_unpacked(header, payload):
    found, rest = unpacked(packed(header, payload))
    assert json.dumps(found) == json.dumps(header)
    assert rest == payload


@given(st.binary())
def test_bytes_are_a_message_or_an_error_of_ours(data):
    try:
        unpacked(data)
    except SalemaError:
        assert not data.startswith(b"\2\0\0\0{}")


@given(st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBP"]), st.binary(max_size=64))
def test_bytes_are_a_frame_or_an_error_of_ours(start, rest):
    with pytest.raises(SalemaError, match="the frame"):
        decoded(start + rest, Limits())


def test_what_is_no_image_is_told_where_raw_frames_go():
    """HTTP takes none."""
    with pytest.raises(VideoError, match="is no image; send a JPEG, PNG or WebP, or say bgr_hw to a WebSocket"):
        decoded(b"II*\0", Limits())


def test_large_frames_are_decoded_on_half_of_the_cores_and_small_ones_meanwhile(monkeypatch):
    decode, begun, goes_on = protocol.decode_image, [], threading.Event()
    small, large = (jpeg(np.zeros((height, 1920, 3), np.uint8)) for height in (1080, 1200))

    def held(path, data, *more):
        if data == large:
            begun.append(1)
            assert goes_on.wait(20)
        return decode(path, data, *more)

    monkeypatch.setattr(protocol, "decode_image", held)
    slots = max(1, usable_cores() // 2)
    with ThreadPoolExecutor(slots + 2) as pool:
        try:
            frames = [pool.submit(protocol.decoded, large, Limits()) for _ in range(slots + 2)]
            until(lambda: len(begun) + len(protocol._LARGE_AT_ONCE._cond._waiters) == slots + 2)
            assert len(begun) == slots
            assert protocol.decoded(small, Limits()).shape == (1080, 1920, 3)
        finally:
            goes_on.set()
        assert [frame.result().shape for frame in frames] == [(1200, 1920, 3)] * (slots + 2)


@given(st.text() | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(json.dumps))
def test_a_text_is_a_message_or_an_error_of_ours(text):
    with pytest.raises(SalemaError):
        Settings().changed(read_message(text), Limits())


def mutants(rng, count):
    """Messages that are nearly right: cut, joined, flipped, of another type, or of random bytes."""
    image = jpeg(rng.integers(0, 256, (48, 64, 3), np.uint8))
    texts = [settings(form="png"), settings(bgr_hw=[8, 8]), settings(opacity=0.3), '{"type": "reset"}']
    chance = random.Random(int(rng.integers(1 << 30)))
    for _ in range(count):
        kind = chance.randrange(6)
        data = bytearray(image if kind < 3 else chance.choice(texts).encode())
        for _ in range(chance.choice([0, 1, 1, 3, 30])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            data = data[: chance.randrange(len(data))]
        if kind == 2:
            data = bytearray(chance.randbytes(8 * 8 * 3))
        yield bytes(data) if kind < 4 else data.decode("utf-8", "replace")


def test_fuzzed_clients_leave_the_server_as_it_was(model, small_clip, disc):
    """Every connection ends or goes on; a stream beside them has its own maps, and all places are given back."""
    rng = np.random.default_rng(19)
    with serving(model, small_clip, limits=Limits(max_fps=10_000)) as one, one.connect() as witness:
        witness.send(settings(form="float16", bgr_hw=(64, 96)))
        seen = []
        for round_ in range(60):
            path = "/api/stream" if round_ % 4 else "/api/sources/0/live"

            with one.connect(path) as socket:
                try:
                    for message in mutants(rng, 40):
                        socket.send(message)
                except ConnectionClosed as closed:
                    assert closed.rcvd.code in {1003, 1009, 1007}

            witness.send(disc[round_ % 4].tobytes())
            seen.append(raw_map(*result(witness)))
        from salema.runtime import load

        with load(model) as stream:
            for round_, found in enumerate(seen):
                np.testing.assert_allclose(found, stream.step(disc[round_ % 4]), rtol=2**-11)
        assert one.ask("/readyz").status == 200
        assert one.notes == []


HELLO = (
    b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def test_broken_frames_of_the_websocket_itself(served):
    """Not by the protocol: reserved bits, no mask, a length that lies, text that is no UTF-8."""
    for frame in (
        b"\xf1\x80\0\0\0\0",
        b"\x82\x05hello",
        b"\x82\xff" + struct.pack(">Q", 1 << 40) + bytes(4),
        b"\x81\x81\0\0\0\0\xff",
        b"\x83\x80\0\0\0\0",
        b"\x80\x80\0\0\0\0",
    ):
        with sockets.create_connection((HOST, served.port), timeout=10) as raw:
            raw.sendall(HELLO)
            assert b"101" in raw.recv(4096)
            raw.sendall(frame)
            answer = b"".join(iter(lambda raw=raw: raw.recv(4096), b""))
            assert answer[:1] == b"\x88"
            assert struct.unpack(">H", answer[2:4])[0] in {1002, 1003, 1007, 1009}


def test_a_message_in_endless_parts_is_cut_off(served):
    """The parts are empty, so that no size is ever too large."""
    with sockets.create_connection((HOST, served.port), timeout=10) as raw:
        raw.sendall(HELLO)
        assert b"101" in raw.recv(4096)
        raw.sendall(b"\x02\x80\0\0\0\0")
        with pytest.raises(OSError, match="reset|pipe"):
            for _ in range(100):
                raw.sendall(b"\x00\x80\0\0\0\0" * 1000)
                time.sleep(0.002)
