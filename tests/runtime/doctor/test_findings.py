import os
import time
from functools import partial

import pytest

from salema.runtime.doctor.findings import Finding, ask, run_apart, unusable
from salema.runtime.errors import BackendError


@pytest.mark.parametrize(
    ("probe", "detail"),
    [
        (partial(int, "x"), "ValueError: invalid literal for int() with base 10: 'x'"),
        (partial(os.abort), "crashed (SIGABRT)"),
        (partial(os._exit, 3), "crashed (exit code 3)"),
        (partial(time.sleep, 60), "no answer within 0.5 s"),
    ],
)
def test_a_probe_that_fails_is_a_finding(capfd, probe, detail):
    (found,) = run_apart("thing", probe, 0.5 if probe.func is time.sleep else 60)
    assert (found.name, found.state, found.detail) == ("thing", "broken", detail)
    assert found.advice
    assert capfd.readouterr() == ("", "")


def test_a_probe_s_output_is_not_in_the_report(capfd):
    assert run_apart("thing", partial(print, "noise")) is None
    assert capfd.readouterr() == ("", "")


def test_our_errors_become_detail_and_advice():
    found = unusable("it", BackendError("no GPU is visible; see nvidia-smi [no CUDA-capable device is detected]"))
    assert found == Finding("it", "broken", "no GPU is visible [no CUDA-capable device is detected]", "see nvidia-smi")


def test_a_program_that_is_not_there_is_missing():
    found = ask("no-program-has-this-name", "-q")
    assert (found.state, found.detail) == ("missing", "no-program-has-this-name is not installed")
