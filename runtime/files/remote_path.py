"""Paths of object stores and other file systems that fsspec reaches by URL (`s3://`, `gs://`, `sftp://`)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from stat import S_IFREG
from types import SimpleNamespace
from typing import Any, TypeGuard, cast

from salema.runtime.errors import (
    MissingDependencyError,
    OutputError,
    SalemaError,
    UnreachableError,
    UsageError,
    VideoError,
    reason,
)

_URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_WAS_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # of two slashes a `Path` keeps one
_LOCAL = re.compile(r"file://(localhost)?(?=/)", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/]*:[^/]*@")
_WITHOUT_FOLDERS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss"}


def as_path(text: str) -> Path:
    """Returns the path that a text names; for a URL a `RemotePath`, which has as much of `Path` as datasets ask for.

    Raises:
        UsageError: no file system goes by this URL.
        MissingDependencyError: fsspec, or its package for this URL, is not installed.
        UnreachableError: a server that is connected to at once can't be reached.
    """
    if not _URL.match(text):
        return Path(text)
    if local := _LOCAL.match(text):
        return Path(text[local.end() :])
    files, path = _opened(text)
    store = _Store(text.rstrip("/"), path.rstrip("/"), files)
    return cast("Path", RemotePath(store, store.path))


def _opened(url: str) -> tuple[Any, str]:
    """Returns fsspec's file system for a URL, and the path in it; see `as_path`."""
    shown, scheme = _LOGIN.sub("", url), url.partition("://")[0]
    try:
        from fsspec.core import get_filesystem_class, url_to_fs  # noqa: PLC0415 - only URLs need it
    except ImportError:
        raise MissingDependencyError(f"{shown}: needs fsspec; install it with: pip install 'salema[urls]'") from None
    try:
        get_filesystem_class(scheme)
    except ImportError as error:
        raise MissingDependencyError(f"{scheme}://: {reason(error)}, on each machine that runs") from None
    except ValueError as error:
        raise UsageError(f"{shown}: no file system that fsspec knows ({reason(error)})") from None
    with remote_errors(shown):
        found: tuple[Any, str] = url_to_fs(url, use_listings_cache=False)  # others may write there meanwhile
    return found


def is_remote(path: object) -> TypeGuard[RemotePath]:
    """Whether a path is a `RemotePath`."""
    return isinstance(path, RemotePath)


def was_url(path: Path) -> bool:
    """Whether a `Path`, which can't hold a URL, was made of one."""
    return bool(_WAS_URL.match(str(path)))


def location(path: Path | RemotePath) -> str:
    """Returns what `as_path` takes: for a URL all of it, its password too, so it is for no message."""
    return path.url if isinstance(path, RemotePath) else str(path)


@contextmanager
def remote_errors(where: object) -> Iterator[None]:
    """Makes one sentence of whatever a file system raises.

    Raises:
        UnreachableError: the file system raised something.
    """
    try:
        yield
    except SalemaError:
        raise
    except Exception as error:  # each file system has errors of its own
        why = f"{where}: can't be reached ({reason(error)}); check the URL and this machine's keys"
        raise UnreachableError(why) from error


@contextmanager
def reading(path: Path | RemotePath) -> Iterator[Callable[[int, int], bytes]]:
    """Yields a function that reads a file's bytes from a start to an end, and at a URL no others.

    An open file of an object store would fetch 50 MB ahead.
    """
    if isinstance(path, RemotePath):
        yield path.read_part
        return
    with path.open("rb") as file:

        def read(start: int, end: int) -> bytes:
            file.seek(start)
            return file.read(end - start)

        yield read


def unlisted(path: Path | RemotePath) -> Path:
    """Returns a path without what a listing, made elsewhere perhaps, said of it."""
    return cast("Path", replace(path, entry=None) if isinstance(path, RemotePath) else path)


class _Store:
    """A file system, by the URL of a place in it and that place's path.

    Only these go to other processes: each opens it anew, with its own keys, and once.
    """

    def __init__(self, url: str, path: str, files: Any = None) -> None:
        self.url, self.path, self._files = url, path, files

    @property
    def files(self) -> Any:
        files = self._files
        if files is None or not files.async_impl:  # of those, fsspec opens one for each thread, and keeps it
            self._files = files = _opened(self.url)[0]
        return files

    def __reduce__(self) -> tuple[Callable[[str, str], _Store], tuple[str, str]]:
        return _store_of, (self.url, self.path)


@lru_cache(maxsize=16)
def _store_of(url: str, path: str) -> _Store:
    return _Store(url, path)


@dataclass(frozen=True, eq=False)
class RemotePath:
    """A file or folder; equal if the URLs are.

    `path` is without the protocol. `entry` is what a listing said of it (type and size); None if it was not listed.
    """

    store: _Store
    path: str
    entry: tuple[str, int] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    @property
    def files(self) -> Any:
        """The file system."""
        return self.store.files

    @property
    def url(self) -> str:
        """The URL with its password, if it has one."""
        if self.path == self.store.path or self.path.startswith(f"{self.store.path}/"):
            return f"{self.store.url}{self.path[len(self.store.path) :]}"
        return str(self.files.unstrip_protocol(self.path))

    @property
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
        """See `Path`; that of a bucket is itself."""
        known = ("directory", 0) if self.entry else None
        return replace(self, path=self.path.rpartition("/")[0], entry=known) if "/" in self.path else self

    def with_name(self, name: str) -> RemotePath:
        """See `Path`."""
        return self.parent / name

    def __truediv__(self, name: str) -> RemotePath:
        return replace(self, path=f"{self.path}/{name}", entry=None)

    def __str__(self) -> str:
        return _LOGIN.sub("", self.url)

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
        return SimpleNamespace(st_size=size, st_mode=S_IFREG)

    def read_part(self, start: int, end: int) -> bytes:
        """Reads bytes of a file; `end` is at most the file's size.

        Raises:
            VideoError: there is no such file any more.
            UnreachableError: it can't be read.
        """
        with remote_errors(self):
            try:
                return bytes(self.files.cat_file(self.path, start=start, end=end)) if start < end else b""
            except FileNotFoundError as error:
                raise VideoError(f"{self}: is gone since its folder was listed ({reason(error)})") from error

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

    def absolute(self) -> RemotePath:
        """See `Path`."""
        return self

    resolve = absolute

    def mkdir(self) -> None:
        """Makes this folder and its parents where there are folders; a store of objects would make a bucket."""
        if self.store.url.partition("://")[0].lower() not in _WITHOUT_FOLDERS:
            self.files.makedirs(self.path, exist_ok=True)

    def check_writable(self) -> None:
        """Writes a small file to this folder and removes it: before long work, so that the work is not lost.

        Raises:
            OutputError: it can't be written.
        """
        trial = self / f".salema-{secrets.token_hex(8)}"
        try:
            self.mkdir()
            self.files.pipe_file(trial.path, b"salema")
            self.files.rm_file(trial.path)
        except SalemaError:
            raise
        except Exception as error:  # each file system has errors of its own
            advice = "check the URL, and that this machine's keys may write and delete there"
            raise OutputError(f"{self}: can't be written ({reason(error)}); {advice}") from error
