"""Listens, serves until a stop is asked for, and ends in time."""

from __future__ import annotations

import errno
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from salema.runtime.errors import SalemaError, UsageError, reason
from salema.runtime.serve.api import PAGES, Api, answer_error
from salema.runtime.serve.guard import App, Gate, Receive, Scope, Send
from salema.runtime.serve.protocol import first_fault
from salema.runtime.serve.service import Service
from salema.runtime.serve.sockets import Sockets

_SEND_BUFFER_BYTES = 1 << 18  # what the kernel keeps for a slow client: a few pictures, not some seconds of them
_POLL_S, _GRACE_S, _JOIN_S = 0.1, 3, 8
_MORE_CONNECTIONS = 64
_MOST_UNKNOWN_BYTES = 1 << 19  # one read, of which a token may be the start
_MOST_PARTS = 10_000
_OPEN = frozenset({"/", "/login", *(f"/static/{name}" for name in PAGES if not name.endswith(".html"))})
_WEBSOCKET: Any = object()


class AddressError(SalemaError, OSError):
    """An address that can't be served."""


@dataclass(frozen=True)
class Tls:
    """Files for HTTPS, in PEM."""

    certificate: Path
    key: Path


def addresses_of(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    """Returns the addresses to listen at.

    Raises:
        UsageError: the host or the port can't be one.
    """
    if not 0 <= port < 1 << 16:
        raise UsageError(f"--port {port}: give a number from 0 to 65535; 0 takes any that is free")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host}: no address of this machine ({reason(error)})") from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def listen(host: str, port: int, idle_s: float) -> list[socket.socket]:
    """Opens the sockets.

    Raises:
        UsageError: see `addresses_of`.
        AddressError: they can't be opened.
    """
    sockets: list[socket.socket] = []
    try:
        for family, address in addresses_of(host, port):
            taken = sockets[0].getsockname()[1] if sockets else port  # of all addresses the same
            sockets.append(_opened(family, (address[0], taken, *address[2:]), idle_s))
    except OSError as error:
        for one in sockets:
            one.close()
        raise _address_error(host, port, error) from error
    return sockets


def _opened(family: socket.AddressFamily, address: tuple[Any, ...], idle_s: float) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that it can start again at once
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # lets clients go that have vanished or never read
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * idle_s))
        opened.bind(address)
        opened.listen(128)
    except BaseException:
        opened.close()
        raise
    return opened


def _address_error(host: str, port: int, error: OSError) -> SalemaError:
    if error.errno == errno.EADDRINUSE:
        return AddressError(f"--port {port}: another program listens there; end it, or give another port")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return AddressError(f"--port {port}: this user may not listen there; give a port above 1023")
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(f"--host {host}: no address of this machine ({reason(error)})")
    return AddressError(f"--host {host} --port {port}: {reason(error)}")


def build_app(service: Service) -> App:
    """Returns the application, with its guard around it."""
    # The pages of the documentation would ask other hosts for their scripts.
    app = FastAPI(title="salema", version=version("salema"), docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(SalemaError, answer_error)
    app.add_exception_handler(RequestValidationError, _answer_wrong_query)
    Api(service).add_to(app)
    sockets = Sockets(service)
    app.add_api_websocket_route("/api/stream", sockets.stream)
    app.add_api_websocket_route("/api/sources/{number}/live", sockets.live)
    gate = Gate(_telling(app, service), service.guard, _OPEN, lambda why: service.metrics.refused.labels(why).inc())
    # Outside, as browsers ask without a token whether they may send one.
    return CORSMiddleware(
        gate,
        allow_origins=service.guard.origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization",),
        expose_headers=("X-Frame", "X-Map-Height", "X-Map-Width"),
    )


def _telling(app: App, service: Service) -> App:
    """Returns the application, whose own failures are told: uvicorn's log, which has paths of requests, is not kept."""

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except (ClientDisconnect, WebSocketDisconnect):
            raise
        except Exception as error:
            service.tell_failure(f"a request failed: {type(error).__name__} ({reason(error)})")
            raise

    return told


async def _answer_wrong_query(_: Request, error: Any) -> Response:
    return JSONResponse({"detail": first_fault(error.errors())}, 422)


class _Sweep:
    """Closes connections that have not sent a whole request for too long: uvicorn would wait for ever."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._since_s: dict[tuple[Any, Any], float] = {}  # of each connection, and its last request
        self.connections: Callable[[], Iterable[Any]] = tuple

    async def __call__(self) -> None:
        now_s = time.monotonic()
        waiting = [(one, one.cycle) for one in self.connections() if _waits_for_request(one)]
        self._since_s = {one: self._since_s.get(one, now_s) for one in waiting}
        for (one, _), since_s in self._since_s.items():
            if now_s - since_s > self._idle_s:
                one.transport.abort()


class _WebSocket(WebSocketsSansIOProtocol):
    """Holds little of one who has not shown the token, and no message in endless parts."""

    _unknown_bytes = 0

    def data_received(self, data: bytes) -> None:
        if not (hasattr(self, "scope") and self.scope["state"].get("known")):
            self._unknown_bytes += len(data)
        if self._unknown_bytes > _MOST_UNKNOWN_BYTES or len(self.frames) > _MOST_PARTS:
            self.transport.abort()
        else:
            super().data_received(data)


def _waits_for_request(connection: Any) -> bool:
    """Whether it is one of uvicorn's HTTP connections between two requests; a WebSocket has no cycle."""
    cycle = getattr(connection, "cycle", _WEBSOCKET)
    return cycle is None or (cycle is not _WEBSOCKET and cycle.response_complete)


def serve(service: Service, sockets: list[socket.socket], stop: threading.Event, tls: Tls | None = None) -> None:
    """Serves until `stop` is set; then ends all connections, and waits some seconds at most.

    Raises:
        SalemaError: the server ended by itself.
    """
    server = _server(service, tls)
    if not gc.get_freeze_count():  # what is loaded by now stays: looking through it would halt all threads for 0.1 s
        gc.freeze()
    # In a thread, where uvicorn leaves signals alone: they are this process's own.
    thread = threading.Thread(target=server.run, args=(sockets,), daemon=True, name="server")
    thread.start()
    while thread.is_alive() and not stop.wait(_POLL_S):
        pass
    ended = not stop.is_set()
    service.stop()
    server.should_exit = True
    thread.join(_JOIN_S)
    if ended:
        raise SalemaError("the server ended by itself; run it again")


def _server(service: Service, tls: Tls | None) -> uvicorn.Server:
    limits = service.limits
    sweep = _Sweep(limits.idle_s)
    config = uvicorn.Config(
        build_app(service),
        http="h11",
        ws=_WebSocket,
        ws_max_size=limits.max_bytes,
        ws_per_message_deflate=False,  # pictures don't get smaller
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        limit_concurrency=2 * (limits.max_streams + limits.max_viewers) + _MORE_CONNECTIONS,
        callback_notify=sweep,
        timeout_notify=1,
        timeout_graceful_shutdown=_GRACE_S,
        ssl_certfile=None if tls is None else str(tls.certificate),
        ssl_keyfile=None if tls is None else str(tls.key),
    )
    server = uvicorn.Server(config)
    sweep.connections = lambda: tuple(server.server_state.connections)
    return server
