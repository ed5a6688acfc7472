"""Who may ask: the token, the hosts that the server answers for, and the origins of pages that may use it."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from salema.runtime.errors import SalemaError, UsageError
from salema.runtime.files.bounded_files import read_file

COOKIE = "salema-serve"
COOKIE_AGE_S = 7 * 24 * 3600
_TOKEN = re.compile(r"[!-~]{16,512}")
_MOST_TOKEN_BYTES = 4096
_MAKE_ONE = "python3 -c 'import secrets; print(secrets.token_urlsafe())' > token"

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
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),  # those of other sites go by CORS
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
    (b"referrer-policy", b"same-origin"),  # with no-referrer, Chromium sends the login form with the origin "null"
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(frozen=True)
class Guard:
    """What a request must show.

    Attributes:
        token: the secret that clients must know, or None.
        hosts: host names, in lower case, that a request may be addressed to, besides IP addresses. A page of another
            name that was made to point here (DNS rebinding) is refused.
        origins: origins, such as `https://example.org`, of other pages that may use the server.
    """

    token: str | None = field(default=None, repr=False)
    hosts: frozenset[str] = frozenset({"localhost"})
    origins: frozenset[str] = frozenset()

    def is_known_host(self, host: str | None) -> bool:
        """Whether a request's `Host` is one that this server answers for."""
        name = _host_name(host or "")
        return name in self.hosts or _is_address(name)

    def is_known_origin(self, origin: str | None, host: str | None) -> bool:
        """Whether a page of this origin may use the server. Programs send no origin."""
        if origin is None:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.netloc.lower() == (host or "").lower() != "" or origin.lower() in self.origins

    def is_token(self, candidate: str) -> bool:
        """Compares a token, in a time that does not tell how much of it is right."""
        if self.token is None:
            return True
        return hmac.compare_digest(candidate.encode("utf-8", "replace"), self.token.encode())

    def new_cookie(self) -> str:
        """Returns a cookie that `is_cookie` takes for a week. It is made from the token, which it does not tell."""
        until = str(int(time.time()) + COOKIE_AGE_S)
        return f"{until}.{self._signature(until)}"

    def is_cookie(self, candidate: str) -> bool:
        """Whether `new_cookie` made it, with this token, within a week."""
        until, _, signature = candidate.partition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), self._signature(until).encode()):
            return False
        return time.time() < int(until)

    def _signature(self, until: str) -> str:
        text = f"{COOKIE} {until}".encode("utf-8", "replace")
        return hmac.new((self.token or "").encode(), text, hashlib.sha256).hexdigest()


def read_token(path: Path) -> str:
    """Reads a token from the first line of a file.

    Raises:
        UsageError: the file is missing, or holds no token.
    """
    try:
        data = read_file(path, _MOST_TOKEN_BYTES, UsageError)
    except (SalemaError, OSError):
        raise UsageError(f"--token-file {path}: can't be read; make one with: {_MAKE_ONE}") from None
    token = data.decode("ascii", "replace").strip()
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            f"--token-file {path}: a token is a line of 16 to 512 letters, digits and signs; make one with: {_MAKE_ONE}"
        )
    return token


def check_token_for(host: str, addresses: Iterable[str], token: str | None) -> None:
    """Refuses to serve others without a token.

    Raises:
        UsageError: an address can be reached from other machines, and there is no token.
    """
    if token is None and not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise UsageError(
            f"--host {host}: others can reach it, so it wants a token; make one with: {_MAKE_ONE}, and add"
            " --token-file token"
        )


def check_origins(origins: Iterable[str]) -> frozenset[str]:
    """Returns origins in lower case.

    Raises:
        UsageError: one is no origin.
    """
    for origin in origins:
        if not re.fullmatch(r"https?://[^/@\s?#]+", origin, re.IGNORECASE):
            raise UsageError(f"--allow-origin {origin}: give scheme and host, such as https://example.org")
    return frozenset(origin.lower() for origin in origins)


def check_hosts(hosts: Iterable[str]) -> frozenset[str]:
    """Returns names of this server in lower case, without their ports.

    Raises:
        UsageError: one is no name.
    """
    for host in hosts:
        if not _host_name(host):
            raise UsageError(f"--allow-host {host}: give a name, such as camera.example")
    return frozenset(map(_host_name, hosts))


def _host_name(host: str) -> str:
    """Returns a `Host` header without its port and brackets, in lower case."""
    match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]]*)(:\d{1,5})?", host.strip().lower())
    return match[1].strip("[]") if match else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


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
                more = [pair for pair in _HEADERS if pair[0] not in given]
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
