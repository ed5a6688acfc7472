"""A server of ours in this process, on a free port, and clients of it."""

import contextlib
import http.client
import json
import threading
import time
from typing import Any, NamedTuple

import cv2
import numpy as np
from websockets.sync.client import connect

from salema.runtime import load
from salema.runtime.serve.guard import Guard
from salema.runtime.serve.limits import Limits
from salema.runtime.serve.places import open_places
from salema.runtime.serve.protocol import unpacked
from salema.runtime.serve.server import listen, serve
from salema.runtime.serve.service import Model, Service
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import find_sources

HOST = "127.0.0.1"
TOKEN = "correct-horse-battery"


class Answer(NamedTuple):
    status: int
    headers: Any
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Served(NamedTuple):
    port: int
    service: Service
    stop: threading.Event
    notes: list

    def ask(self, path, method="GET", body=None, **headers):
        """One HTTP request; `headers` by their names with underscores."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named, encode_chunked="Transfer-Encoding" in named)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def connect(self, path="/api/stream", **options):
        """A WebSocket."""
        how = {"max_size": None, "compression": None, "proxy": None, "open_timeout": 20, **options}
        return connect(f"ws://{HOST}:{self.port}{path}", **how)


@contextlib.contextmanager
def serving(model, *given, limits=None, guard=None, selection=None, port=0):
    """Serves sources; `port` is a free one, unless it is given."""
    limits, notes, stop = limits or Limits(), [], threading.Event()
    sources = find_sources([str(name) for name in given], strict=False)
    stream = load(model)
    facts = Model(stream.spec, stream.description)
    with contextlib.closing(open_places(stream, len(sources) + limits.max_streams, 20)) as places:
        service = Service(facts, places, limits, guard or Guard(), notes.append)
        sockets = listen(HOST, port, limits.idle_s)
        for source in sources:
            service.add_source(source, selection or Selection())
        thread = threading.Thread(target=serve, args=(service, sockets, stop))
        thread.start()
        try:
            service.wait_for_sources(stop)
            yield Served(sockets[0].getsockname()[1], service, stop, notes)
        finally:
            stop.set()
            thread.join(20)
            service.close()
        assert not thread.is_alive()


def jpeg(image):
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def image_of(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def settings(**values):
    return json.dumps({"type": "settings", **values})


def result(socket, timeout=20):
    """Receives one result: its header and payload; a text is an error."""
    message = socket.recv(timeout)
    return (json.loads(message), b"") if isinstance(message, str) else unpacked(message)


def raw_map(header, payload):
    return np.frombuffer(payload, "<f2").reshape(header["map_hw"])


def until(true):
    """Waits for something that must come about."""
    deadline = time.monotonic() + 20
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert true()
