"""A connection to a Ray cluster, and its nodes: checked before work begins, so that what is wrong is one sentence."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salema.runtime.cpu import usable_cores
from salema.runtime.errors import BackendError, MissingDependencyError, OutputError, UsageError, reason
from salema.runtime.files.remote_path import is_remote
from salema.runtime.files.whole_files import make_folder
from salema.runtime.fleet.shared import Shared
from salema.runtime.spec import salema_version

LOCAL = "local"
"""The address of a cluster of this machine alone, which is started for the run and ends with it."""
AUTO = "auto"
"""The address that RAY_ADDRESS gives, or that of the cluster that runs on this machine."""
LOW_MEMORY = "running low on memory"
"""In Ray's errors about workers that it ended for want of memory."""
_ANSWER_S, _CHECK_S = 5.0, 120.0
_ADDRESS = re.compile(r"(?i)\bip[:=] ?([\da-fA-F.:]+[\da-fA-F])")


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Attributes:
        id: Ray's.
        name: address and host name, for people.
        cores: CPUs that Ray has been given.
        gpus: GPUs that Ray has been given.
    """

    id: str
    name: str
    cores: float
    gpus: float


class Cluster:
    """An open connection; see `connected`."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray

    def nodes(self) -> list[Node]:
        """Returns the nodes that are alive."""
        return [
            Node(
                id=node["NodeID"],
                name=f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})",
                cores=node["Resources"].get("CPU", 0),
                gpus=node["Resources"].get("GPU", 0),
            )
            for node in self.ray.nodes()
            if node["Alive"]
        ]

    def check(self, nodes: Sequence[Node], read: Sequence[Path], written: Path | None = None) -> Shared:
        """Has nodes look for what they need; returns what later ones must find too.

        Raises:
            BackendError: a node lacks something, or does not answer.
            OutputError: the folder for results can't be written from here.
        """
        mark = None
        if written is not None and not is_remote(written):  # the nodes write to a URL, this machine does not
            make_folder(written)
            mark = f".salema-{secrets.token_hex(8)}"
        shared = Shared(salema_version(), tuple(read), written, mark)
        try:
            if written is not None and mark is not None:
                with _writing(written / mark):
                    (written / mark).touch()
            for node, lack in zip(nodes, self._ask(nodes, shared), strict=True):
                if lack:
                    raise BackendError(f"node {node.name}: {lack}")
        finally:
            if written is not None and mark is not None:
                with suppress(OSError):
                    (written / mark).unlink(missing_ok=True)
        return Shared(shared.version, shared.read, written)

    def _ask(self, nodes: Sequence[Node], shared: Shared) -> Iterator[str]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415 - see above

        look = self.ray.remote(num_cpus=0, max_retries=1)(Shared.missing_here)
        on = [NodeAffinitySchedulingStrategy(node.id, soft=False) for node in nodes]
        asked = [look.options(scheduling_strategy=where).remote(shared) for where in on]
        answered, _ = self.ray.wait(asked, num_returns=len(asked), timeout=_CHECK_S)
        for ref in asked:
            yield self._answer(ref) if ref in answered else f"gave no answer in {_CHECK_S:.0f} s"

    def _answer(self, ref: Any) -> str:
        try:
            return str(self.ray.get(ref))
        except self.ray.exceptions.RayTaskError as error:
            return why_not_there(error)
        except self.ray.exceptions.RayError as error:  # a node that was lost just now can't begin: others will do
            return why_not_there(error) if is_without_salema(error) else ""


def is_without_salema(error: Exception) -> bool:
    """Whether a task or worker could not begin because its node has no salema."""
    return "No module named 'salema" in str(error)


def why_not_there(error: Exception) -> str:
    """Returns in words why a task or worker could not begin on a node."""
    if is_without_salema(error):
        return f"salema is not installed there; install salema {salema_version()} for the Python that Ray runs in"
    if LOW_MEMORY in str(error):
        return "has too little memory for a worker; give its workers more cores each, by --threads"
    return f"can't begin ({_last_line(error)})"


def node_of(error: Exception) -> str:
    """Returns the node that one of Ray's errors tells of, in words."""
    found = _ADDRESS.search(str(error))
    return f"node {found[1]}" if found else "a node"


def node_here() -> str:
    """Returns this node's `Node.name`."""
    return f"{import_ray().util.get_node_ip_address()} ({socket.gethostname()})"


def _last_line(error: Exception) -> str:
    """Returns what went wrong: before it Ray tells where, in several lines."""
    return str(error).strip().rpartition("\n")[2].strip() or type(error).__name__


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path.parent}: can't be written ({reason(error)}); choose another place") from error


@contextmanager
def connected(address: str = AUTO) -> Iterator[Cluster]:
    """Connects to a Ray cluster, for as long as the context lasts.

    Args:
        address: `auto`, `HOST:PORT`, `ray://HOST:PORT`, or `local`.

    Raises:
        MissingDependencyError: Ray is not installed.
        UsageError: the address names nothing.
        BackendError: no cluster runs there, or it runs another version of Ray or Python.
    """
    ray = import_ray()
    with ExitStack() as stack:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address == LOCAL:
            # The cluster's logs and sockets go with it. Its own folder would be kept for ever.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True))
            options |= {"num_cpus": usable_cores(), "include_dashboard": False, "_temp_dir": folder}
            options["_node_ip_address"] = "127.0.0.1"  # else Ray asks the network for this machine's own address
        else:
            options["address"] = _found(address)
        with _signals_kept():
            _begin(ray, address, options)
        stack.callback(ray.shutdown)
        yield Cluster(ray)


def import_ray() -> Any:
    """Imports Ray, after its settings, which it reads once.

    Raises:
        MissingDependencyError: it is not installed.
    """
    # Ray reports how clusters are used to its makers, unless this is set where a cluster is started.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # It prints paragraphs about each worker that dies, whatever `log_to_driver` says. We say it in a sentence.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", r"[\s\S]*")
    try:
        import ray  # noqa: PLC0415 - takes a second, and only this needs it
        import ray.exceptions  # noqa: PLC0415
    except ImportError:
        raise MissingDependencyError("--ray: Ray is missing; install it with: pip install 'salema[ray]'") from None
    return ray


def _found(address: str) -> str:
    """Returns the address of a cluster that answers. Ray itself would wait for one for ever."""
    from ray._private.services import canonicalize_bootstrap_address  # noqa: PLC0415 - has no public name in 2.60

    if address.startswith("ray://"):
        found: str | None = address.removeprefix("ray://")
    else:
        try:
            found = canonicalize_bootstrap_address(address)
        except ConnectionError:
            found = None
        except ValueError:
            raise UsageError(f"--ray {address}: no address; give HOST:PORT, auto or {LOCAL}") from None
    if found is None:
        raise BackendError(_none("no Ray cluster runs on this machine, and RAY_ADDRESS is not set"))
    host, _, port = found.rpartition(":")
    if not port.isdecimal():
        raise UsageError(f"--ray {address}: no address; give HOST:PORT, auto or {LOCAL}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise BackendError(_none(f"no Ray cluster answers at {found} ({reason(error)})")) from None
    return address if address.startswith("ray://") else found


def _none(what: str) -> str:
    return f"--ray: {what}; start one with: ray start --head, or take this machine's cores with: --ray {LOCAL}"


def _begin(ray: Any, address: str, options: dict[str, Any]) -> None:
    try:
        ray.init(**options)
    except (ConnectionError, TimeoutError) as error:
        raise BackendError(_none(f"can't connect to {address} ({reason(error).splitlines()[0]})")) from None
    except RuntimeError as error:
        told, mine = " ".join(str(error).split()), f"Ray {ray.__version__} and Python {sys.version.split()[0]}"
        why = f"the cluster has other versions than {mine} here" if "ersion" in told else "can't begin"
        raise BackendError(f"--ray {address}: {why} ({told})") from None
    except OSError as error:  # a socket's path is too long where TMPDIR is
        raise BackendError(f"--ray {address}: can't begin ({reason(error)}); set TMPDIR to a short path") from None
    except ValueError as error:  # `ray://` without its package
        raise UsageError(f"--ray {address}: {reason(error).splitlines()[0]}") from None


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Puts our handlers of signals back, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
