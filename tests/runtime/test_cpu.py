"""How many threads a network gets: cores, affinity and a container's share."""

import os
from pathlib import Path

import pytest

from salema.runtime.cpu import (
    cpu_fact,
    cpu_features,
    fill_all_cores,
    threads_for,
    usable_cores,
    usable_cpus,
)
from salema.runtime.errors import UsageError


def machine(root, cores, *, siblings=1):
    """Writes the topology of `cores * siblings` CPUs, numbered as Linux does: first all cores, then the siblings."""
    for cpu in range(cores * siblings):
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text("0\n")
        (folder / "core_id").write_text(f"{cpu % cores}\n")
    return root


def files(root, **texts):
    for name, text in texts.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def affinity(monkeypatch):
    return lambda *cpus: monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cpus))


def test_two_hardware_threads_of_a_core_count_once(tmp_path, affinity):
    machine(tmp_path, 4, siblings=2)
    for cpus, count in [(range(8), 4), (range(4), 4), ((0, 4), 1), ((0, 1, 4), 2)]:
        affinity(*cpus)
        assert usable_cores(tmp_path) == count
    affinity(*range(2, 8))
    assert usable_cpus(tmp_path) == [2, 3, 4, 5]  # 4 and 5 are the siblings of 0 and 1
    assert usable_cpus(tmp_path, every_thread=True) == [2, 3, 4, 5, 6, 7]


def test_where_the_kernel_tells_nothing_each_cpu_counts(tmp_path, affinity):
    affinity(2, 3, 5)
    assert usable_cores(tmp_path) == 3


@pytest.mark.parametrize(
    ("limit", "count"),
    [("max 100000", 4), ("50000 100000", 1), ("100000 100000", 1), ("250000 100000", 2), ("900000 100000", 4)],
)
def test_a_container_s_share_is_rounded_down(tmp_path, affinity, limit, count):
    affinity(*range(4))
    files(machine(tmp_path, 4), proc__self__cgroup="0::/a/b\n")
    (tmp_path / "sys/fs/cgroup/a/b").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/a/cpu.max").write_text(limit)  # of the group around it
    assert usable_cores(tmp_path) == count
    assert fill_all_cores(count, tmp_path) == (count == 4)  # others run on the cores beyond the share


def test_inside_a_container_only_the_top_of_the_tree_exists(tmp_path, affinity):
    affinity(*range(4))
    files(machine(tmp_path, 4), proc__self__cgroup="0::/docker/123\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("200000 100000\n")
    assert usable_cpus(tmp_path) == usable_cpus(tmp_path, every_thread=True) == [0, 1]


@pytest.mark.parametrize(("quota", "count"), [("-1", 4), ("150000", 1), ("300000", 3)])
def test_the_first_version_of_cgroups(tmp_path, affinity, quota, count):
    affinity(*range(4))
    files(machine(tmp_path, 4), proc__self__cgroup="5:memory:/x\n4:cpu,cpuacct:/x\n")
    folder = tmp_path / "sys/fs/cgroup/cpu/x"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu.cfs_period_us").write_text("100000")
    assert usable_cores(tmp_path) == count


def test_here_it_is_no_more_than_this_process_may_use():
    before = os.sched_getaffinity(0)
    assert 1 <= usable_cores() <= len(before)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == threads_for(None) == 1
    finally:
        os.sched_setaffinity(0, before)


def test_a_number_that_is_given_counts_if_it_makes_sense():
    assert threads_for(7) == 7
    for number in (0, -1, 1025):
        with pytest.raises(UsageError, match=rf"--threads {number}: give 1 to 1024"):
            threads_for(number)


def test_facts_are_those_of_this_cpu():
    assert cpu_fact("no such entry") is None
    text = Path("/proc/cpuinfo").read_text("utf-8")
    assert all(feature in text for feature in cpu_features())
