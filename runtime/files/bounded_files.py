"""Files from strangers: their kind and their size are checked before they are read.

Reading a FIFO would wait for ever, a link to /dev/zero never ends, and a few megabytes can unfold to gigabytes.
"""

from __future__ import annotations

import stat
from pathlib import Path

from salema.runtime.errors import SalemaError, reason
from salema.runtime.files.remote_path import is_remote

MOST_IMAGE_BYTES = 1 << 29  # a 16K picture (15360x8640) without compression has 0.4 GB
MOST_LIST_BYTES = 1 << 24


def check_file(path: Path, most_bytes: int, kind: type[SalemaError]) -> int:
    """Refuses a file that is not an ordinary one, or too big; returns its size in bytes. Links are followed.

    Raises:
        SalemaError: it can't be read safely; the error's class is `kind`.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise kind(f"{path}: can't be read ({reason(error)})") from error
    if not stat.S_ISREG(facts.st_mode):
        raise kind(f"{path}: is no ordinary file; copy what it gives into one")
    if facts.st_size > most_bytes:
        raise kind(f"{path}: has {shown_size(facts.st_size)}, and {shown_size(most_bytes)} are the most that is read")
    return facts.st_size


def read_file(path: Path, most_bytes: int, kind: type[SalemaError]) -> bytes:
    """Reads a whole file, after `check_file`; one at a URL into memory.

    Raises:
        SalemaError: it can't be read, or not safely; the error's class is `kind`, or, at a URL, `VideoError`.
    """
    size = check_file(path, most_bytes, kind)
    if is_remote(path):
        return path.read_part(0, size)
    try:
        with path.open("rb") as file:
            return file.read(size)  # no more, even if it has grown
    except OSError as error:
        raise kind(f"{path}: can't be read ({reason(error)})") from error


def shown_size(size_bytes: int) -> str:
    """Returns a size for people: `1.5 GB`, in powers of 1000."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if size_bytes >= 10**power:
            return f"{size_bytes / 10**power:.1f} {unit}"
    return f"{size_bytes} bytes"
