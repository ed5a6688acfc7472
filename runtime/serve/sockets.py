"""The WebSockets: a client's own stream, and watching a source."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from aiolimiter import AsyncLimiter
from anyio import create_task_group, fail_after, move_on_after
from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from salema.runtime.errors import SalemaError, UsageError
from salema.runtime.serve.protocol import Message, Settings, decoded, packed, read_message
from salema.runtime.serve.results import MIME, Result
from salema.runtime.serve.service import FullError, Service
from salema.runtime.serve.streams import ClientStream, Refusal, Stream

_POLICY, _UNSUPPORTED, _FAILED, _TRY_LATER, _RESTART = 1008, 1003, 1011, 1013, 1012  # RFC 6455, and IANA's list
_MOST_REASON_BYTES = 123
_TOKEN_WAIT_S, _CLOSE_WAIT_S = 10.0, 2.0
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

    async def stream(self, websocket: WebSocket) -> None:
        """Takes frames, and gives the result of each, or of the newest: one stream, with its own state."""
        await self._session(websocket, partial(self._stream, websocket))

    async def live(self, websocket: WebSocket, number: int) -> None:
        """Gives a source's newest result each time that the client asks."""
        await self._session(websocket, partial(self._live, websocket, number))

    async def _session(self, websocket: WebSocket, work: Callable[[], Awaitable[None]]) -> None:
        await websocket.accept()
        code, why = 1000, ""
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
        if code != 1000:  # noqa: PLR2004
            self._service.metrics.refused.labels(f"websocket {code}").inc()
        reason = why.encode()[:_MOST_REASON_BYTES].decode("utf-8", "ignore")
        with suppress(WebSocketDisconnect, RuntimeError), move_on_after(_CLOSE_WAIT_S):
            await websocket.close(code, reason)

    async def _admit(self, websocket: WebSocket) -> None:
        """Waits for the token, unless the handshake brought it."""
        if websocket.scope["state"]["known"]:
            return
        try:
            with fail_after(_TOKEN_WAIT_S):
                data = await _received(websocket)
        except TimeoutError:
            raise _EndError(_POLICY, "token: none came") from None
        message = read_message(data) if isinstance(data, str) else None
        if message is None or message.type != "token" or not self._service.guard.is_token(message.token or ""):
            await asyncio.sleep(0.5)
            raise _EndError(_POLICY, "token: wrong, or missing")

    async def _stream(self, websocket: WebSocket) -> None:
        client = self._service.open_client()
        try:
            session = _Session(websocket, self._service)
            await _first_of(partial(self._take_frames, session, client), partial(self._give_results, session, client))
        finally:
            self._service.forget(client)

    async def _take_frames(self, session: _Session, client: ClientStream) -> None:
        pace = AsyncLimiter(self._limits.max_fps, 1)
        while True:
            data = await session.receive()
            if isinstance(data, bytes):
                if not pace.has_capacity():
                    client.leave_out()
                    continue
                await pace.acquire()
                client.offer(partial(decoded, data, self._limits, session.settings.bgr_hw))
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
        if not 0 <= number < len(self._service.sources):
            raise UsageError(f"source {number}: there are {len(self._service.sources)}, from 0 on")
        with self._service.viewing():
            session = _Session(websocket, self._service)
            source = self._service.sources[number]
            viewer = _Viewer(source.stream)
            await _first_of(partial(viewer.take_asks, session), partial(viewer.give_results, session))


class _Viewer:
    """One who watches a source. It gets a result for each time that it asks."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._asked, self._number = stream, asyncio.Semaphore(0), 0
        self._open = 0

    async def take_asks(self, session: _Session) -> None:
        while True:
            data = await session.receive()
            if isinstance(data, bytes):
                raise UsageError("frames are for /api/stream; this source is the server's own")
            if data.type == "settings":
                session.change(data)
                self._number = 0  # so that a picture that stands still is drawn anew
            elif data.type == "next" and self._open < _MOST_ASKED:
                self._open += 1
                self._asked.release()

    async def give_results(self, session: _Session) -> None:
        while True:
            await self._asked.acquire()
            result = await self._stream.latest.after(self._number)
            if result is None:
                raise _EndError(_RESTART, "the source has ended, or the server stops")
            self._number = result.number
            self._open -= 1
            await session.give(result, self._stream.pace.summary())


class _Session:
    """An open WebSocket, and what its client wants."""

    def __init__(self, websocket: WebSocket, service: Service) -> None:
        self._websocket, self._service = websocket, service
        self.settings = Settings()
        self._flood = AsyncLimiter(_FLOOD * service.limits.max_fps, 1)

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
