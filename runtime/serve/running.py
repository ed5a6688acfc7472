"""Puts a server together, and runs it until a signal."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from salema.runtime.batching.stream_batch import check_max_wait
from salema.runtime.cli.opening import Announced, Opening
from salema.runtime.errors import UsageError, reason
from salema.runtime.serve.guard import Guard, check_hosts, check_origins, check_token_for, read_token
from salema.runtime.serve.limits import Limits
from salema.runtime.serve.places import open_places
from salema.runtime.serve.server import Tls, addresses_of, listen, serve
from salema.runtime.serve.service import Model, Service
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import find_sources
from salema.runtime.stopping import stop_requested
from salema.runtime.telling import show, tell


@dataclass(frozen=True)
class Access:
    """Where the server listens, and who may ask it; see the options of `salema-serve`."""

    host: str
    port: int
    token_file: Path | None
    hosts: tuple[str, ...]
    origins: tuple[str, ...]

    def guard(self) -> Guard:
        """Returns what requests must show.

        Raises:
            UsageError: an option is wrong, or others can reach the address and there is no token.
        """
        token = None if self.token_file is None else read_token(self.token_file)
        check_token_for(self.host, [str(address[0]) for _, address in addresses_of(self.host, self.port)], token)
        own = socket.gethostname()
        names = {"localhost", self.host, own, f"{own.partition('.')[0]}.local"}  # mDNS has the last one
        known = frozenset(name.lower() for name in names) | check_hosts(self.hosts)
        return Guard(token, known, check_origins(self.origins))


def run_server(
    given: Sequence[str],
    selection: Selection,
    opening: Opening,
    access: Access,
    limits: Limits,
    tls: Tls | None,
    *,
    max_wait_ms: float,
) -> None:
    """Serves sources, and what clients send, until a signal.

    Raises:
        SalemaError: an option is wrong, the address is taken, the model can't be opened, or no source can.
    """
    check_max_wait(max_wait_ms)
    sources = find_sources(given, strict=False)
    guard = access.guard()
    _check_tls(tls)
    sockets = listen(access.host, access.port, limits.idle_s)
    try:
        with stop_requested() as stop:
            announced = Announced(opening)
            stream = announced()
            model = Model(stream.spec, announced.description)
            places = open_places(stream, len(sources) + limits.max_streams, max_wait_ms)
            with closing(places):
                service = Service(model, places, limits, guard, lambda told: tell(f"note: {told}"))
                with closing(service):
                    for source in sources:
                        service.add_source(source, selection)
                    service.wait_for_sources(stop)
                    if not stop.is_set():
                        _show_address(access.host, sockets[0], tls)
                    serve(service, sockets, stop, tls)
    finally:
        for one in sockets:
            one.close()


def _check_tls(tls: Tls | None) -> None:
    if tls is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, password="")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--certificate {tls.certificate} --key {tls.key}: can't be used ({reason(error)}); give both in PEM"
        ) from error


def _show_address(host: str, listening: socket.socket, tls: Tls | None) -> None:
    address, port = listening.getsockname()[:2]
    is_any = ipaddress.ip_address(address).is_unspecified
    scheme, name = "http" if tls is None else "https", "localhost" if is_any else host
    show(f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}/")
    if is_any:
        tell(f"note: others reach it at {scheme}://{socket.gethostname()}:{port}/, or by this machine's IP address")
