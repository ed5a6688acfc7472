"""Who may ask: the token, the hosts that the server answers for, and the origins of pages that may use it."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from salema.runtime.errors import SalemaError, UsageError
from salema.runtime.files.bounded_files import read_file

COOKIE = "salema-serve"
COOKIE_AGE_S = 7 * 24 * 3600
_TOKEN = re.compile(r"[!-~]{16,512}")
_MOST_TOKEN_BYTES = 4096
_MAKE_ONE = "python3 -c 'import secrets; print(secrets.token_urlsafe())' > token"


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
