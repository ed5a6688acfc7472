import errno

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
        (MemoryError(), 1, "prog: out of memory; close other programs or use a smaller --imgsz or --batch"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            1,
            "prog: out of memory; close other programs or use a smaller --imgsz or --batch",
        ),
        (KeyboardInterrupt(), 130, "prog: interrupted"),
    ],
)
def test_every_error_is_a_sentence_and_a_code(capsys, error, code, line):
    with pytest.raises(SystemExit) as stop, exit_on_error("prog"):
        raise error
    assert stop.value.code == code
    assert capsys.readouterr().err == line + "\n"


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
