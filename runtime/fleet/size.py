"""How many workers a cluster can hold, and what each takes."""

from __future__ import annotations

from dataclasses import dataclass

from salema.runtime.fleet.cluster import Cluster


@dataclass(frozen=True)
class Size:
    """Which workers there are.

    Attributes:
        workers: the most at a time.
        cores: CPUs of each, which its network's threads share.
        gpus: GPUs of each, 0 or 1.
    """

    workers: int
    cores: int
    gpus: int = 0


def workers_that_fit(cluster: Cluster, cores: int, gpus: int) -> int:
    """Returns how many workers the nodes that are alive could hold, whatever else they do now."""
    return sum(int(min([node.cores // cores, *([node.gpus // gpus] if gpus else [])])) for node in cluster.nodes())
