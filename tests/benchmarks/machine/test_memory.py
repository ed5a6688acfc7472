"""Memory by Linux's own count, and by that of other systems."""

import sys

import pytest

from salema.benchmarks.machine import memory


def test_what_is_held_is_no_more_than_the_peak():
    assert 10 < memory.resident_mb() <= memory.peak_mb()


def test_the_peak_is_in_bytes_on_macos_and_in_kilobytes_elsewhere(monkeypatch):
    there = memory._most_mb()
    assert there > 10
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory._most_mb() == pytest.approx(there / 1024, rel=0.1)
