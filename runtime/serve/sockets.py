"""The WebSockets: a client's own stream, and watching a source."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from anyio import CancelScope, create_task_group, fail_after, move_on_after
from fastapi import WebSocket
from fastapi.responses import JSONResponse
from starlette.websockets import WebSocketDisconnect

from salema.runtime.errors import SalemaError, UsageError
from salema.runtime.serve.protocol import Message, Settings, Upload, packed, read_message
from salema.runtime.serve.results import MIME, Refusal, Result
from salema.runtime.serve.service import FullError, Service, limiter
from salema.runtime.serve.streams import ClientStream, Sent, Stream

_ENDED, _POLICY, _UNSUPPORTED, _FAILED, _TRY_LATER, _RESTART = 1000, 1008, 1003, 1011, 1013, 1012  # RFC 6455, IANA
_MOST_REASON_BYTES = 123
_TOKEN_WAIT_S, _CLOSE_WAIT_S = 10.0, 2.0
_MOST_UNKNOWN = 16  # connections that have not shown the token yet
_MOST_ASKED = 4  # results that a viewer may ask for ahead
_FLOOD = 4  # of messages so many times as frames are allowed, those beyond are not even read
_T = TypeVar("_T")


class _EndError(Exception):
    """The connection is over: the code and reason to close it with."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class Sockets:
    """The WebSocket routes of a service."""

    def __init__(self, service: Service) -> None:
        self._service, self._limits = service, service.limits
        self._unknown = 0

    async def stream(self, websocket: WebSocket) -> None:
        """Takes frames, and gives the result of each, or of a later one: one stream, with its own state."""
        await self._session(websocket, partial(self._stream, websocket))

    async def live(self, websocket: WebSocket, number: int) -> None:
        """Gives a source's newest result each time that the client asks."""
        await self._session(websocket, partial(self._live, websocket, number))

    async def _session(self, websocket: WebSocket, work: Callable[[], Awaitable[None]]) -> None:
        if self._unknown >= _MOST_UNKNOWN and not websocket.scope["state"]["known"]:
            self._service.metrics.refused.labels("token").inc()
            why = "too many wait to show their token; send it in a header, or try again later"
            await websocket.send_denial_response(JSONResponse({"detail": why}, 503, {"Retry-After": "1"}))
            return
        await websocket.accept()
        code, why = _ENDED, ""
        try:
            await self._admit(websocket)
            await work()
        except _EndError as end:
            code, why = end.code, str(end)
        except FullError as error:
            code, why = _TRY_LATER, str(error)
        except (UsageError, KeyError) as error:
            code, why = _UNSUPPORTED, str(error)
        except SalemaError as error:
            code, why = _FAILED, str(error)
        except WebSocketDisconnect:
            return
        if code != _ENDED:
            self._service.metrics.refused.labels(f"websocket {code}").inc()
        reason = why.encode()[:_MOST_REASON_BYTES].decode("utf-8", "ignore")
        with suppress(WebSocketDisconnect, RuntimeError), move_on_after(_CLOSE_WAIT_S):
            await websocket.close(code, reason)

    async def _admit(self, websocket: WebSocket) -> None:
        """Waits for the token, unless the handshake brought it."""
        state = websocket.scope["state"]
        if state["known"]:
            return
        self._unknown += 1
        try:
            with fail_after(_TOKEN_WAIT_S):
                data = await _received(websocket)
            if not self._is_token(data):
                await asyncio.sleep(0.5)
                raise _EndError(_POLICY, "token: wrong, or missing")
            state["known"] = True
        except TimeoutError:
            raise _EndError(_POLICY, "token: none came") from None
        finally:
            self._unknown -= 1

    def _is_token(self, data: bytes | str) -> bool:
        with suppress(UsageError):
            message = read_message(data) if isinstance(data, str) else None
            return message is not None and message.type == "token" and self._service.guard.is_token(message.token or "")
        return False

    async def _stream(self, websocket: WebSocket) -> None:
        client = self._service.open_client()
        try:
            session, rate = _Session(websocket, self._service), _Rate(client, self._limits.max_fps)
            take, give = partial(self._take_frames, session, client, rate), partial(self._give_results, session, client)
            await _first_of(take, rate.run, give)
        finally:
            self._service.forget(client)

    async def _take_frames(self, session: _Session, client: ClientStream, rate: _Rate) -> None:
        while True:
            data = await session.receive()
            if isinstance(data, bytes):
                await rate.offer(client.arrived(Upload(data, self._limits, session.settings)))
            elif data.type == "reset":
                client.reset()
            else:
                session.change(data)

    async def _give_results(self, session: _Session, client: ClientStream) -> None:
        number = 0
        while (result := await client.latest.after(number)) is not None:
            number = result.number
            await session.give(result, client.pace.summary())
        if client.failure:
            raise SalemaError(client.failure)
        raise _EndError(_RESTART, "the server stops")

    async def _live(self, websocket: WebSocket, number: int) -> None:
        source = self._service.source(number)
        viewer = _Viewer(source.stream)
        with self._service.viewing():
            session = _Session(websocket, self._service)
            await _first_of(partial(viewer.take_asks, session), partial(viewer.give_results, session))
        if self._service.is_over:
            raise _EndError(_RESTART, "the server stops")
        raise _EndError(_ENDED, source.problem or "the source has ended")


class _Rate:
    """Offers frames to a stream at a client's rate. Of those that come too soon the newest waits: it is answered."""

    def __init__(self, client: ClientStream, max_fps: float) -> None:
        self._client, self._limiter = client, limiter(max_fps)
        self._late: Sent | None = None
        self._is_late = asyncio.Event()

    async def offer(self, frame: Sent) -> None:
        """Takes a frame; never waits."""
        if self._late is not None:
            self._late = frame.instead_of(self._late)
            self._client.pace.drop(1, "rate")
        elif self._limiter.has_capacity():
            await self._limiter.acquire()
            self._client.offer(frame)
        else:
            self._late = frame
            self._is_late.set()

    async def run(self) -> None:
        """Offers the frames that wait, when they may go."""
        while True:
            await self._is_late.wait()
            await self._limiter.acquire()
            frame, self._late = self._late, None
            self._is_late.clear()
            assert frame is not None
            self._client.offer(frame)


class _Viewer:
    """One who watches a source. It gets a result for each time that it asks."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._asked, self._number = stream, asyncio.Semaphore(0), 0
        self._open = 0
        self._waiting = CancelScope()

    async def take_asks(self, session: _Session) -> None:
        while True:
            data = await session.receive()
            if isinstance(data, bytes):
                raise UsageError("frames are for /api/stream; this source is the server's own")
            if data.type == "settings":
                session.change(data)
                self._number = 0  # so that a picture that stands still is drawn anew
                self._waiting.cancel()
            elif data.type == "next" and self._open < _MOST_ASKED:
                self._open += 1
                self._asked.release()

    async def give_results(self, session: _Session) -> None:
        while True:
            await self._asked.acquire()
            result = await self._newer()
            if result is None:
                return
            self._number = result.number
            self._open -= 1
            await session.give(result, self._stream.pace.summary())

    async def _newer(self) -> Result | Refusal | None:
        """Waits for a result that was not given yet, in the look of now; None once no more come."""
        while True:
            with CancelScope() as self._waiting:
                return await self._stream.latest.after(self._number)


class _Session:
    """An open WebSocket, and what its client wants."""

    def __init__(self, websocket: WebSocket, service: Service) -> None:
        self._websocket, self._service = websocket, service
        self.settings = Settings()
        self._flood = limiter(_FLOOD * max(service.limits.max_fps, 1))

    async def receive(self) -> bytes | Message:
        """Returns the next message: a frame's bytes, or what a text says."""
        await self._flood.acquire()
        data = await self._in_time(_received(self._websocket))
        return data if isinstance(data, bytes) else read_message(data)

    def change(self, message: Message) -> None:
        """Takes new settings.

        Raises:
            UsageError: the message is of another type, or a value is not possible.
        """
        if message.type != "settings":
            raise UsageError(f"type {message.type}: not for this socket")
        self.settings = self.settings.changed(message, self._service.limits)

    async def give(self, result: Result | Refusal, speed: dict[str, float | int | None]) -> None:
        """Sends a result in the client's form."""
        if isinstance(result, Refusal):
            await self._in_time(self._websocket.send_json({"frame": result.number, "error": result.sentence}))
            return
        settings = self.settings
        loop = asyncio.get_running_loop()
        payload = await loop.run_in_executor(self._service.workers, result.encoded, settings.form, settings.look)
        height, width = result.saliency.shape
        header = {
            "frame": result.number,
            "form": settings.form,
            "mime": MIME[settings.form],
            "map_hw": [height, width],
            "starts_anew": result.starts_anew,
            "range": [float(result.saliency.min()), float(result.saliency.max())],
            "latency_ms": result.latency_ms,
            **speed,
        }
        await self._in_time(self._websocket.send_bytes(packed(header, payload)))

    async def _in_time(self, work: Awaitable[_T]) -> _T:
        try:  # not wait_for: until Python 3.12 it can swallow a cancellation, and the task goes on for ever
            with fail_after(self._service.limits.idle_s):
                return await work
        except TimeoutError:
            raise _EndError(_POLICY, f"nothing for {self._service.limits.idle_s:g} s (--idle-s)") from None
        except RuntimeError:  # uvicorn's, where it has closed the connection itself, as after a message too large
            raise WebSocketDisconnect(1006) from None


async def _received(websocket: WebSocket) -> bytes | str:
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    data: bytes | str | None = message.get("bytes")
    return message["text"] if data is None else data


async def _first_of(*works: Callable[[], Awaitable[None]]) -> None:
    """Runs several until the first ends; ends the others, and raises what it raised."""
    ended: list[Exception | None] = []

    async def run(work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - raised below
            ended.append(error)
        else:
            ended.append(None)
        group.cancel_scope.cancel()

    async with create_task_group() as group:
        for work in works:
            group.start_soon(run, work)
    if ended and ended[0] is not None:
        raise ended[0]
