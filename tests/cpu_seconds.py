"""A plugin that ends a run with the twenty tests of most CPU time, that of ended child processes included:

PYTHONPATH=tests make test ARGS="-p cpu_seconds"

A fixture that many tests share counts for the first of them. CPU time is much the same on a machine with other work.
"""

import os
import time

import pytest

STARTED = pytest.StashKey()
COUNT = 20
FOUND = []


def clocks():
    times = os.times()
    return time.perf_counter(), times.user + times.system, times.children_user + times.children_system


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    item.stash[STARTED] = clocks()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item):
    item.user_properties.append(("clocks", [b - a for a, b in zip(item.stash[STARTED], clocks(), strict=True)]))


def pytest_runtest_logreport(report):
    if report.when == "teardown":
        FOUND.extend((*clocks, report.nodeid) for name, clocks in report.user_properties if name == "clocks")


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section(f"CPU time of {len(FOUND)} tests: {sum(own + kids for _, own, kids, _ in FOUND):.0f} s")
    for wall, own, kids, name in sorted(FOUND, key=lambda one: -one[1] - one[2])[:COUNT]:
        terminalreporter.write_line(
            f"{own + kids:7.1f} s, of it {kids:5.1f} in children, {wall:6.1f} by the clock  {name}"
        )
