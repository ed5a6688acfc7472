"""A Ray cluster of several nodes on this machine, whose workers can be killed."""

import os
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

# Each of these is Ray's own, and said by it while it works as it should.
RAY_WARNINGS = ("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::FutureWarning")
OF_A_NODE = {"object_store_memory": 100 << 20}


def add_node(cluster, cores):
    cluster.add_node(num_cpus=cores, **OF_A_NODE)


@contextmanager
def nodes_started(*cores):
    """Starts a node for each number of cores; yields the cluster, whose processes end with the context.

    Without what shows and scales a cluster and reads its logs: each of these is a process of its own.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = r"[\s\S]*"
    from ray.cluster_utils import Cluster

    before = signal.getsignal(signal.SIGTERM)
    # A node counts as lost once it has not answered five times: by default, that is after 15 s.
    often = {"_system_config": {"health_check_period_ms": 300}}
    without = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores[0], **OF_A_NODE, **often, **without})
    try:
        for count in cores[1:]:
            add_node(cluster, count)
        yield cluster
    finally:
        cluster.shutdown()
        signal.signal(signal.SIGTERM, before)  # each node has set a handler, which would outlive it


def workers_of(cluster, title_start=b"ray::Worker"):
    """The processes that hold our workers, by their node; or those that do other work of Ray's."""
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in cluster.list_all_nodes()}
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                title = (process / "cmdline").read_bytes()
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if parent in raylets and title.startswith(title_start):
                found[int(process.name)] = raylets[parent]
    return found


@contextmanager
def meanwhile(work):
    """Runs a function in a thread while the context lasts, and raises what it raised."""
    failures = []

    def guarded():
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join(60)
    assert not failures, failures


def wait_for(condition, seconds=60):
    """Returns the first true value that a function gives."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "what was waited for has not come"
        time.sleep(0.005)
    return value


def kill(pid):
    os.kill(pid, signal.SIGKILL)
