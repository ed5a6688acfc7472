"""Writes files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from salema.runtime.errors import KeptError, OutputError, SalemaError, reason
from salema.runtime.files.disk_sync import sync
from salema.runtime.files.locks import has_locks, lock, lock_if_possible

_NUMBERS = itertools.count()
_CHUNK_BYTES = 1 << 20


def make_folder(path: Path) -> None:
    """Makes a folder and its parents, unless they exist.

    Raises:
        OutputError: it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: can't make this folder ({reason(error)}); choose another place") from error


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Makes a folder and its parents, unless they exist; after an error, removes those that it made.

    Raises:
        OutputError: it can't be made.
    """
    fresh = [place for place in (path, *path.parents) if not place.exists()]
    make_folder(path)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # something else is in it by now
            for place in fresh:
                place.rmdir()
        raise


def check_writable(path: Path) -> None:
    """Refuses a file that can't be written. Called before long work, so that the work is not lost.

    Raises:
        OutputError: the file's folder is missing or read-only, or the path is there and is not an ordinary file.
    """
    _check_ordinary(path)
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: can't be written (its folder is missing or read-only); choose another place")


def _check_ordinary(path: Path) -> None:
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file")
    if path.exists() and not path.is_file():  # such as a device, which root would replace
        raise OutputError(f"{path}: is no ordinary file; choose another name")


@contextmanager
def written_aside(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yields a hidden path beside `path` to write to. At the end it is renamed to `path`; on any error it is removed.

    The hidden name holds the process number, a count and a random number, so that no two writers share a file, those in
    two containers on one volume neither. It keeps the suffix. The file is locked while it is written, so that
    `recovery.py` knows which files a killed process has left. Windows has no such locks, so nothing is recovered there.

    A `durable` file is synced to the disk before it gets its name.

    Raises:
        KeptError: the file is there, but the disk failed to sync it.
        OutputError: the file can't be written.
    """
    _check_ordinary(path)
    with translated(path), _aside(path, durable=durable) as aside:
        yield aside


@contextmanager
def translated(path: Path, kinds: tuple[type[Exception], ...] = (OSError,)) -> Iterator[None]:
    """Turns errors of these kinds into an OutputError about a file that is written."""
    try:
        yield
    except SalemaError:  # some of ours are OSErrors too
        raise
    except kinds as error:
        raise OutputError(f"{path}: can't be written ({reason(error)}); make room or choose another place") from error


@contextmanager
def _aside(path: Path, *, durable: bool) -> Iterator[Path]:
    target = Path(os.path.realpath(path))  # a link's target is replaced, not the link
    problem: str | None = None
    while problem is None:
        number = f"{os.getpid()}.{next(_NUMBERS)}-{secrets.token_hex(4)}"
        aside = target.with_name(f".{target.stem[:50]}.{number}.partial{target.suffix}")
        try:
            with aside.open("wb") as file:
                if hold(file) and aside.exists():  # else whoever recovers files has taken it for a left one
                    yield aside
                    problem = _sync_problem(aside) if durable else ""
                    aside.replace(target)
        finally:  # a signal may come as soon as the file is there
            with suppress(OSError):  # a read-only disk
                aside.unlink(missing_ok=True)
    if durable and (problem := problem or _sync_problem(target.parent)):
        raise KeptError(f"{path}: is written, but may not be on the disk ({problem}); check the disk")


def hold(file: BinaryIO) -> bool:
    """Locks an open file until it is closed, if the file system can; returns False if another process has locked it."""
    if not has_locks():  # Windows can't rename an open file
        file.close()
    return lock_if_possible(file) is not False


def _sync_problem(path: Path) -> str:
    try:
        sync(path)
    except OSError as error:
        return reason(error)
    return ""


@contextmanager
def taken_over(path: Path) -> Iterator[bool]:
    """Yields whether the process that wrote this file of `written_aside` is gone; meanwhile the file is locked.

    Raises:
        OutputError: the file can't be locked.
    """
    with ExitStack() as stack:
        is_left = False
        try:
            file = stack.enter_context(path.open("rb+"))  # NFS and CIFS lock no file that is open for reading only
            is_left = has_locks() and lock(file) and path.exists()  # not finished meanwhile
        except FileNotFoundError:  # finished
            pass
        except OSError as error:
            raise OutputError(
                f"{path}: no telling whether a run still writes it ({reason(error)}); if none does, remove it"
            ) from error
        yield is_left


def append(file: io.FileIO, data: bytes) -> int:
    """Writes all of the bytes at the position of an unbuffered file, or none of them; returns how many.

    Raises:
        OSError: there is no room for them; the file is cut off at the position.
    """
    start, left = file.tell(), memoryview(data)
    try:
        while left:
            left = left[file.write(left) or 0 :]
    except OSError:
        file.truncate(start)
        file.seek(start)
        raise
    return len(data)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a small file, whole or not at all.

    Raises:
        OutputError: it can't be written.
    """
    with written_aside(path) as aside:
        aside.write_bytes(data)


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
