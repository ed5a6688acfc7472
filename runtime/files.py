"""Files that are there whole or not at all."""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from salema.runtime.errors import OutputError, SalemaError, reason

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBERS = itertools.count()


def make_folder(path: Path) -> None:
    """Makes a folder and its parents, if it isn't there.

    Raises:
        OutputError: it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: can't make this folder ({reason(error)}); choose another place") from error


def check_writable(path: Path) -> None:
    """Refuses, before long work, a file that could not be written after it.

    Raises:
        OutputError: its folder is missing or can't be written, or it is there and no ordinary file.
    """
    _check_ordinary(path)
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: can't be written (its folder is missing or read-only); choose another place")


def _check_ordinary(path: Path) -> None:
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file")
    if path.exists() and not path.is_file():  # a device: root would replace it
        raise OutputError(f"{path}: is no ordinary file; choose another name")


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yields a hidden name beside `path` to write to: renamed to `path` at the end, removed on any error.

    The name holds the process number and a count, so that no two writers share a file, and keeps the suffix.

    Raises:
        OutputError: the file can't be written.
    """
    target = Path(os.path.realpath(path))  # through a link, to what it stands for
    aside = target.with_name(f".{target.stem[:50]}.{os.getpid()}.{next(_NUMBERS)}.partial{target.suffix}")
    _check_ordinary(path)
    try:
        yield aside
        aside.replace(target)
    except SalemaError:  # some of ours are OSErrors too
        raise
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({reason(error)}); make room or choose another place") from error
    finally:
        with suppress(OSError):  # on a read-only disk it never was
            aside.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a whole small file.

    Raises:
        OutputError: it can't be written.
    """
    with written_aside(path) as aside:
        aside.write_bytes(data)
