"""Paths of object stores and other file systems that fsspec reaches by URL (`s3://`, `gs://`, `sftp://`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

from salema.runtime.errors import MissingDependencyError, SalemaError, UsageError, VideoError, reason

_URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_LOCAL = re.compile(r"file://(localhost)?(?=/)", re.IGNORECASE)


def as_path(text: str) -> Path:
    """Returns the path that a text names; for a URL a `RemotePath`, which has as much of `Path` as datasets ask for.

    Raises:
        UsageError: no file system goes by this URL.
        MissingDependencyError: fsspec, or its package for this URL, is not installed.
    """
    if not (url := _URL.match(text)):
        return Path(text)
    if local := _LOCAL.match(text):
        return Path(text[local.end() :])
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - only URLs need it
    except ImportError:
        raise MissingDependencyError(f"{text}: needs fsspec; install it with: pip install 'salema[urls]'") from None
    try:
        files, path = url_to_fs(text, use_listings_cache=False)  # others may write there meanwhile
    except ImportError as error:
        raise MissingDependencyError(f"{url[0]}: {reason(error)}, on each machine that runs") from None
    except ValueError as error:
        raise UsageError(f"{text}: no file system that fsspec knows ({reason(error)})") from None
    return cast("Path", RemotePath(files, path.rstrip("/")))


def is_remote(path: object) -> bool:
    """Whether a path is a `RemotePath`."""
    return isinstance(path, RemotePath)


@contextmanager
def remote_errors(where: object) -> Iterator[None]:
    """Makes one sentence of whatever a file system raises.

    Raises:
        VideoError: the file system raised something.
    """
    try:
        yield
    except SalemaError:
        raise
    except Exception as error:  # each file system has errors of its own
        why = f"{where}: can't be reached ({reason(error)}); check the URL and this machine's keys"
        raise VideoError(why) from error


@dataclass(frozen=True)
class RemotePath:
    """A file or folder; equal if file system and path are.

    Attributes:
        files: fsspec's file system.
        path: the path in it, without the protocol.
        entry: what a listing said of it (`type`, `size`); None if it was not listed.
    """

    files: Any
    path: str
    entry: tuple[str, int] | None = None

    @cached_property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.path)

    @property
    def name(self) -> str:
        """See `Path`."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """See `Path`."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """See `Path`."""
        return self._pure.suffix

    @property
    def parts(self) -> tuple[str, ...]:
        """See `Path`."""
        return self._pure.parts

    @property
    def parent(self) -> RemotePath:
        """See `Path`."""
        return replace(self, path=self.path.rpartition("/")[0], entry=None)

    def with_name(self, name: str) -> RemotePath:
        """See `Path`."""
        return self.parent / name

    def __truediv__(self, name: str) -> RemotePath:
        return replace(self, path=f"{self.path}/{name}", entry=None)

    def __str__(self) -> str:
        return str(self.files.unstrip_protocol(self.path))

    def exists(self) -> bool:
        """See `Path`."""
        with remote_errors(self):
            return self.entry is not None or bool(self.files.exists(self.path))

    def is_dir(self) -> bool:
        """See `Path`."""
        with remote_errors(self):
            return self.entry[0] == "directory" if self.entry else bool(self.files.isdir(self.path))

    def is_file(self) -> bool:
        """See `Path`."""
        with remote_errors(self):
            return self.entry[0] == "file" if self.entry else bool(self.files.isfile(self.path))

    def stat(self) -> SimpleNamespace:
        """See `Path`."""
        with remote_errors(self):
            size = self.entry[1] if self.entry else self.files.size(self.path)
        return SimpleNamespace(st_size=size)

    def open(self, mode: str = "rb") -> BinaryIO:
        """See `Path`."""
        with remote_errors(self):
            return cast("BinaryIO", self.files.open(self.path, mode))

    def read_text(self, encoding: str) -> str:
        """See `Path`."""
        with remote_errors(self):
            return bytes(self.files.cat_file(self.path)).decode(encoding)

    def iterdir(self) -> Iterator[RemotePath]:
        """Yields what is in a folder, by one listing; nothing if there is no such folder."""
        with remote_errors(self):
            try:
                found = self.files.ls(self.path, detail=True)
            except FileNotFoundError:
                return
        for each in found:
            path = each["name"].rstrip("/")
            if path != self.path:  # some stores keep an empty object for the folder itself
                yield replace(self, path=path, entry=(each["type"], each["size"] or 0))
