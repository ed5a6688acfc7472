"""The errors a user can meet: one sentence each, with what was found and what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from salema.kernels.errors import BackendError, MissingDependencyError, SalemaError, reason
from salema.runtime.stopping import signals_taken
from salema.runtime.telling import tell

# The base classes live in the lowest package. All other code imports every error from here.
__all__ = [
    "INTERRUPTED_EXIT_CODE",
    "BackendError",
    "CheckpointError",
    "KeptError",
    "MapError",
    "MissingDependencyError",
    "ModelError",
    "NewerModelError",
    "OutputError",
    "SalemaError",
    "UnreachableError",
    "UsageError",
    "VerificationError",
    "VideoError",
    "exit_on_error",
    "reason",
]
INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as shells report it


class UsageError(SalemaError, ValueError):
    """An option whose value is wrong, whatever the files hold."""

    exit_code = 2


class CheckpointError(SalemaError, ValueError):
    """Weights that can't be read, can't be trusted, or don't fit."""


class ModelError(SalemaError, ValueError):
    """An exported model that is missing, foreign, corrupt or of a newer version."""


class NewerModelError(ModelError):
    """A model that a newer salema wrote; this version can't make any of its files again."""


class VideoError(SalemaError, OSError):
    """A video that is missing, unreadable or empty."""


class UnreachableError(VideoError):
    """A place at a URL that this machine can't reach."""


class MapError(SalemaError, ValueError):
    """A saliency, density or fixation map that is missing, unreadable, or not what it should be."""


class OutputError(SalemaError, OSError):
    """A file or folder that can't be written."""


class KeptError(OutputError):
    """An output that is kept, though not all of it could be written, or synced to the disk.

    Attributes:
        notes: other sentences for the user.
    """

    def __init__(self, sentence: str, notes: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.notes = tuple(notes)


class VerificationError(SalemaError, RuntimeError):
    """An exported model that does not do what the PyTorch model does."""


@contextmanager
def exit_on_error(program: str, if_out_of_memory: str = "") -> Iterator[None]:
    """Ends a command that fails with one sentence on stderr and an exit code, not with a traceback.

    Args:
        program: the command's name.
        if_out_of_memory: advice on options that need less memory; told when there is not enough.

    Raises:
        SystemExit: 2 for usage, 1 for a failure, 130 when interrupted.
    """
    if sys.stderr is None:  # it is closed: print() would write to stdout, and progress bars would fail
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - stays open to the end
    try:
        with signals_taken():
            yield
    except BrokenPipeError:  # the reader of stdout is gone, as after `| head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
        raise SystemExit(1) from None
    except SalemaError as error:
        code, message = error.exit_code, str(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code, message = 1, f"{where}{reason(error)}"
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):  # PyTorch's and ONNX Runtime's MemoryError
            raise
        code, message = 1, "out of memory; close other programs" + (if_out_of_memory and f", or {if_out_of_memory}")
    except KeyboardInterrupt:
        code, message = INTERRUPTED_EXIT_CODE, "interrupted"
    else:
        return
    tell(f"{program}: {message}")
    raise SystemExit(code)
