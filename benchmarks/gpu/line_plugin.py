"""A plugin of pytest: writes a line of JSON when a test ends, so that a run that is killed has told all until then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option that names the file."""
    parser.addoption("--lines", type=Path, required=True, help="JSON Lines file for what each test gave")


def pytest_configure(config: pytest.Config) -> None:
    """Begins to write."""
    config.pluginmanager.register(_Lines(config.getoption("--lines")))


class _Lines:
    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test's call ends it; its set-up only where that skips or fails, its tear-down where that fails."""
        if report.when == "call" or not report.passed:
            self._write(report.nodeid, report.outcome, report.longrepr, report.duration)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that can't be read as tests is a failure too."""
        if not report.passed:
            self._write(report.nodeid, report.outcome, report.longrepr, 0)

    def _write(self, test: str, outcome: str, text: object, duration_s: float) -> None:
        told = text[2].removeprefix("Skipped: ") if isinstance(text, tuple) else str(text or "")
        record = {"test": test, "outcome": outcome, "text": told, "duration_s": round(duration_s, 3)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
