"""Facts about this machine's CPU, and how many threads a network should get on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from salema.runtime.errors import UsageError

VECTOR_FEATURES = {
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "bf16", "i8mm", "fphp", "asimdhp", "sve"),
}
_MOST_THREADS = 1024
_CPUINFO = Path("/proc/cpuinfo")
_TOPOLOGY = "sys/devices/system/cpu/cpu{}/topology"
_V2, _V1 = "sys/fs/cgroup", "sys/fs/cgroup/cpu"


def cpu_fact(name: str) -> str | None:
    """Returns the first core's entry in /proc/cpuinfo; None where there is none."""
    entries = (line.partition(":") for line in (_read(_CPUINFO) or "").splitlines())
    return next((value.strip() for key, _, value in entries if key.strip() == name), None)


def cpu_features() -> list[str] | None:
    """Returns the CPU's vector extensions, of those that decide how fast a network runs."""
    flags = cpu_fact("flags") or cpu_fact("Features")
    return None if flags is None else sorted(set(flags.split()) & VECTOR_FEATURES)


def threads_for(threads: int | None) -> int:
    """Returns how many threads a network gets: the number given, or one for each core that this process may use.

    Raises:
        UsageError: the number is not 1 to 1024.
    """
    if threads is None:
        return usable_cores()
    if not 1 <= threads <= _MOST_THREADS:
        raise UsageError(f"--threads {threads}: give 1 to {_MOST_THREADS}")
    return threads


def threads_each(threads: int | None, jobs: int) -> int | None:
    """Returns the threads of each of several networks that run side by side: the number given, or a share of the cores.

    None stands for all cores, as in `threads_for`.
    """
    return threads if threads is not None or jobs == 1 else max(1, usable_cores() // jobs)


def usable_cores(root: Path = Path("/")) -> int:
    """Returns how many cores this process may use, at least 1; see `usable_cpus`."""
    return len(usable_cpus(root))


def usable_cpus(root: Path = Path("/"), *, every_thread: bool = False) -> list[int]:
    """Returns the numbers of the CPUs that this process may use, one for each core, at least one.

    Two hardware threads of one core count once, as convolutions gain nothing from the second; with `every_thread` each
    counts. Cores that the process is kept from (`taskset`) don't count. A container's share (cgroup) is rounded down:
    beyond it, the kernel would stop all threads for the rest of each tenth of a second.
    """
    chosen = _allowed_cpus(root, every_thread=every_thread)
    return chosen[: max(1, int(min([len(chosen), *_shares(root)])))]


def fill_all_cores(threads: int, root: Path = Path("/")) -> bool:
    """Returns whether so many threads use every core that this process may run on.

    A container's share counts as part of the cores: other containers run on the same ones.
    """
    return threads >= len(_allowed_cpus(root, every_thread=False))


def _allowed_cpus(root: Path, *, every_thread: bool) -> list[int]:
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)  # not on macOS
    first: dict[tuple[str, str], int] = {}
    for cpu in sorted(cpus):
        core = None if every_thread else _core_of(root / _TOPOLOGY.format(cpu))
        first.setdefault(core or (str(cpu), ""), cpu)
    return list(first.values())


def _core_of(topology: Path) -> tuple[str, str] | None:
    """Returns package and core of a CPU; None if the kernel doesn't tell."""
    package, core = (_read(topology / name) for name in ("physical_package_id", "core_id"))
    return None if package is None or core is None else (package, core)


def _shares(root: Path) -> Iterator[float]:
    """Yields the CPU shares, in cores, of this process's cgroups and of those around them."""
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        top = root / (_V1 if controllers else _V2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        place = top / path.lstrip("/")
        for folder in (place, *place.parents):  # in a container the path may be the host's, and only the top exist
            if not folder.is_relative_to(top):
                break
            quota, period = (
                (_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))
                if controllers
                else ((_read(folder / "cpu.max") or "max 1").split()[:2])
            )
            if quota and period and quota.isdecimal() and int(quota):  # "max" or -1 for no limit
                yield int(quota) / int(period)


def _read(file: Path) -> str | None:
    try:
        return file.read_text("utf-8").strip()
    except OSError:
        return None
