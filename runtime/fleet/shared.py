"""What every node of a cluster must find as the machine that starts the work does."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from salema.runtime.errors import BackendError, OutputError, SalemaError, reason
from salema.runtime.files.remote_path import is_remote, reading, unlisted
from salema.runtime.spec import salema_version


@dataclass(frozen=True)
class Shared:
    """What every node must find as this machine does.

    Attributes:
        version: of salema.
        read: files and folders that are read.
        written: the folder that results go to, or None.
        mark: a file in it that shows that it is this folder, and not another one of its name; None once that is known.
    """

    version: str
    read: tuple[Path, ...]
    written: Path | None = None
    mark: str | None = None

    def missing_here(self) -> str:
        """Returns what this machine lacks, in words; empty if it lacks nothing."""
        if (here := salema_version()) != self.version:
            return f"has salema {here}, and the command was started with {self.version}; install the same version"
        try:
            for path in self.read:
                _try_to_read(unlisted(path))
            if is_remote(self.written):
                self.written.check_writable()
            elif self.written is not None:
                self._try_to_write(self.written)
        except (SalemaError, OSError) as error:
            return str(error) if isinstance(error, SalemaError) else reason(error)
        return ""

    def _try_to_write(self, folder: Path) -> None:
        if not (folder / (self.mark or "")).exists():
            raise OutputError(f"can't see {folder}; mount it there too, or name a place by URL")
        trial = folder / f".salema-{secrets.token_hex(8)}"
        try:
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise OutputError(f"can't write to {folder} ({reason(error)})") from error


def _try_to_read(path: Path) -> None:
    if not path.exists():
        raise BackendError(f"can't see {path}; mount it there too, or name a place by URL, such as s3://bucket/folder")
    if path.is_file() and path.stat().st_size:
        try:
            with reading(path) as read:
                read(0, 1)
        except PermissionError as error:
            raise BackendError(f"can't read {path} ({reason(error)}); give its user the right to") from error
