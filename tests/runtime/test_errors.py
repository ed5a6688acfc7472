import errno
import importlib
import re

import pytest

from salema.runtime import errors
from salema.runtime.errors import exit_on_error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (errors.UsageError("no such view"), 2, "prog: no such view"),
        (errors.ModelError("no model"), 1, "prog: no model"),
        (errors.VideoError("no video"), 1, "prog: no video"),
        (OSError(errno.ENOSPC, "No space left on device", "a.mp4"), 1, "prog: a.mp4: No space left on device"),
        (MemoryError(), 1, "prog: out of memory; close other programs"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            1,
            "prog: out of memory; close other programs",
        ),
        (KeyboardInterrupt(), 130, "prog: interrupted"),
    ],
)
def test_every_error_is_a_sentence_and_a_code(capsys, error, code, line):
    with pytest.raises(SystemExit) as stop, exit_on_error("prog"):
        raise error
    assert stop.value.code == code
    assert capsys.readouterr().err == line + "\n"


MAINS = {
    "salema-run": ("salema.runtime.cli.run", "salema.runtime.sources.source.find_sources", ["v.mp4"]),
    "salema-eval": (
        *("salema.benchmarks.scores.cli", "salema.benchmarks.maps.ground_truth.list_truth"),
        ["--pred", "p", "--gt", "g", "--dataset", "other"],
    ),
    "salema-bench": ("salema.benchmarks.speed.cli", "salema.benchmarks.speed.bench.run_bench", []),
    "salema-export": ("salema.export.cli", "salema.export.exporter.export_model", ["--weights", "seeded:16"]),
    "salema-train": ("salema.training.cli", "salema.training.run.train", []),
    "salema-doctor": ("salema.runtime.doctor.cli", "salema.runtime.doctor.report.examine", []),
}


@pytest.mark.parametrize("program", MAINS)
def test_the_advice_for_too_little_memory_names_options_of_that_command(cli, monkeypatch, program):
    module, inner, arguments = MAINS[program]
    main = importlib.import_module(module).main

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(inner, fail)
    ran = cli(main, *arguments)
    (line,) = [line for line in ran.err.splitlines() if "out of memory" in line]
    assert (ran.code, line.startswith(f"{program}: out of memory; close other programs")) == (1, True)
    own = line.replace("a --model exported with a smaller --imgsz", "--model")
    known = set(re.findall(r"--[a-z][a-z-]*", cli(main, "--help").out))
    assert set(re.findall(r"--[a-z][a-z-]*", own)) <= known


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), exit_on_error("prog"):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="other"), exit_on_error("prog"):
        raise RuntimeError("other")


@pytest.mark.parametrize(
    ("ours", "builtin"),
    [
        (errors.UsageError, ValueError),
        (errors.CheckpointError, ValueError),
        (errors.ModelError, ValueError),
        (errors.BackendError, RuntimeError),
        (errors.MissingDependencyError, ImportError),
        (errors.VideoError, OSError),
        (errors.OutputError, OSError),
        (errors.VerificationError, RuntimeError),
    ],
)
def test_each_is_also_a_builtin(ours, builtin):
    assert issubclass(ours, errors.SalemaError)
    assert issubclass(ours, builtin)
