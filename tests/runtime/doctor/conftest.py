import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def report():
    """Runs the whole command in its own process; returns its JSON."""
    code = "from salema.runtime.doctor.cli import main; main()"
    ran = subprocess.run([sys.executable, "-c", code, "--json"], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    return json.loads(ran.stdout)


@pytest.fixture(scope="session")
def findings(report):
    named = {finding["name"]: finding for finding in report["findings"]}
    assert len(named) == len(report["findings"])
    return named
