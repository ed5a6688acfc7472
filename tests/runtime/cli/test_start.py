"""What happens before and after a command's function, each in its own process."""

import subprocess
import sys

import pytest

from salema.runtime.cli.start import _completed

COMMANDS = [
    "salema.benchmarks.speed.cli",
    "salema.benchmarks.scores.cli",
    "salema.export.cli",
    "salema.runtime.cli.run",
    "salema.runtime.doctor.cli",
]


def start(module, *arguments, **options):
    code = f"import sys; sys.argv[0] = 'x'; from {module} import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], text=True, stderr=-1, **options)


@pytest.mark.parametrize("module", COMMANDS)
def test_an_unknown_option_is_one_sentence(module):
    ran = start(module, "--nonsense", stdout=-1)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert len(ran.stderr.splitlines()) == 1
    name = ran.stderr.partition(":")[0]
    assert name.startswith("salema-")
    assert ran.stderr.startswith(f"{name}: no such option: --nonsense")
    assert ran.stderr.endswith(f"; see {name} --help\n")


@pytest.mark.parametrize("module", COMMANDS)
def test_help_on_a_full_disk_is_one_sentence(module):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        ran = start(module, "--help", stdout=full)
    assert ran.returncode == 1
    assert ran.stderr.endswith(": No space left on device\n")
    assert len(ran.stderr.splitlines()) == 1


def test_with_stderr_closed_stdout_holds_no_error():
    code = "import sys; sys.stderr = None; from salema.runtime.cli.run import main; main()"
    ran = subprocess.run([sys.executable, "-c", code, "--nonsense"], stdout=-1, text=True)
    assert (ran.returncode, ran.stdout) == (2, "")


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("--ray", "--ray=auto"),
        ("--ray --jobs 2", "--ray=auto --jobs 2"),
        ("--jobs 2 --ray", "--jobs 2 --ray=auto"),
        ("--ray host:1 --json", "--ray host:1 --json"),
        ("--ray=host:1", "--ray=host:1"),
        ("v.mp4", "v.mp4"),
        ("", ""),
    ],
)
def test_an_option_that_may_go_without_a_value_gets_the_implied_one(given, whole):
    assert _completed(given.split(), {"--ray": "auto"}) == whole.split()
