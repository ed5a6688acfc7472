"""Looks at every request before the routes do: host, origin, token; and gives every answer its headers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from salema.runtime.serve.guard import COOKIE, Guard

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PROBES = frozenset({"/healthz", "/readyz"})  # asked by address, without a token; they tell nothing
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = (
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:;"
            b" connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ),
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class Gate:
    """An ASGI application around another, which sees only requests that may be answered.

    A WebSocket without a token is let through, with `scope["state"]["known"]` False: its first message may bring it.

    Args:
        app: the application inside.
        guard: what a request must show.
        open_paths: paths that need no token.
        refused: called with the reason of each refusal.
    """

    def __init__(self, app: App, guard: Guard, open_paths: frozenset[str], refused: Callable[[str], None]) -> None:
        self._app, self._guard, self._open_paths, self._refused = app, guard, open_paths | PROBES, refused
        policy = b"cross-origin" if guard.origins else b"same-origin"
        self._headers = [*_HEADERS, (b"cross-origin-resource-policy", policy), (b"cache-control", b"no-store")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        send = self._with_headers(send)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        status, why = self._fault(scope, headers)
        if status:
            self._refused(why.partition(":")[0])
            await _refuse(scope, send, status, why)
            return
        scope.setdefault("state", {})["known"] = self._is_known(headers)
        if scope["type"] == "http" and not scope["state"]["known"] and scope["path"] not in self._open_paths:
            self._refused("token")
            await _refuse(scope, send, 401, "token: log in, or send the header Authorization: Bearer TOKEN")
            return
        await self._app(scope, receive, send)

    def _fault(self, scope: Scope, headers: dict[bytes, str]) -> tuple[int, str]:
        """Returns the status and the sentence with which to refuse; 0 to go on."""
        host, origin = headers.get(b"host"), headers.get(b"origin")
        if scope["path"] not in PROBES and not self._guard.is_known_host(host):
            return 421, "host: this server does not answer for this name; start it with --allow-host NAME"
        writes = scope["type"] == "websocket" or scope["method"] not in _READS
        if writes and not self._guard.is_known_origin(origin, host):
            return 403, "origin: pages of other servers may not use this one; start it with --allow-origin URL"
        return 0, ""

    def _is_known(self, headers: dict[bytes, str]) -> bool:
        guard = self._guard
        if guard.token is None:
            return True
        scheme, _, token = headers.get(b"authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return guard.is_token(token.strip())
        return guard.is_cookie(_cookie(headers.get(b"cookie", "")))

    def _with_headers(self, send: Send) -> Send:
        async def wrapped(message: MutableMapping[str, Any]) -> None:
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                given = {name.lower() for name, _ in message.get("headers", ())}
                more = [pair for pair in self._headers if pair[0] not in given]
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        return wrapped


def _cookie(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


async def _refuse(scope: Scope, send: Send, status: int, why: str) -> None:
    body = json.dumps({"detail": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:  # noqa: PLR2004
        headers.append((b"www-authenticate", b"Bearer"))
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        kind = "websocket.http.response"
    else:
        kind = "http.response"
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
