"""Recovers the unfinished files that killed runs have left beside their outputs."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av.error

from salema.runtime.errors import OutputError, UsageError, reason
from salema.runtime.files.whole_files import taken_over
from salema.runtime.output.npz_file import recover_npz
from salema.runtime.output.split_sink import is_part_of
from salema.runtime.video.mp4 import copy_for_players, cut_to_whole_fragments
from salema.runtime.wording import counted

# As `files.written_aside` names them.
_NAME = re.compile(r"\.(?P<stem>.+)\.\d+\.\d+(-[0-9a-f]+)?\.partial(?P<suffix>\.[^.]+)?", re.DOTALL)
_HELPERS = {".times", ".copy"}  # they belong to another file, and are removed with it


class _Left(NamedTuple):
    path: Path
    stem: str
    suffix: str


def recover_beside(outputs: Sequence[Path]) -> list[str]:
    """Recovers what killed runs have left of these files or of their parts; returns sentences for the user.

    MP4, NPZ and CSV files are kept as `<name>.recovered-1.mp4` and so on; half a PNG is removed. Files that another
    process is still writing are left alone.
    """
    notes = []
    for output in outputs:
        real = Path(os.path.realpath(output))
        if real.is_dir():
            notes += remove_unfinished(real)
        elif real.parent.is_dir():
            notes += map(str, _recover(real.parent, partial(_is_of, real)))
    return notes


def remove_unfinished(folder: Path) -> list[str]:
    """Removes the unfinished files of killed processes that can't be recovered; returns sentences for the user."""
    return [str(note) for note in _recover(folder, lambda left: left.suffix.lower() not in _KEPT)]


def recover_folder(folder: Path) -> list[str | OutputError]:
    """Recovers everything in a folder and its subfolders; see `recover_beside`. Failures are returned as errors.

    Raises:
        UsageError: there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"--recover {folder}: no such folder; name the one that the run wrote to")
    inside = (path for path in sorted(folder.rglob("*")) if path.is_dir() and not path.is_symlink())
    return [note for place in (folder, *inside) for note in _recover(place, lambda _: True)]


def _is_of(output: Path, left: _Left) -> bool:
    return is_part_of(output, left.stem) and left.suffix == output.suffix


def _recover(folder: Path, is_wanted: Callable[[_Left], bool]) -> list[str | OutputError]:
    notes, removed = list[str | OutputError](), 0
    for left in filter(is_wanted, sorted(_left_in(folder))):
        try:
            with taken_over(left.path) as is_left:
                keep = _KEPT.get(left.suffix.lower())
                if is_left and keep is None:
                    left.path.unlink(missing_ok=True)
                    removed += 1
                elif is_left and keep is not None:
                    notes.append(_keep(left, keep))
        except OutputError as error:  # noqa: PERF203 - the others are recovered all the same
            notes.append(error)
        except OSError as error:
            notes.append(
                OutputError(f"{left.path}: an earlier run has left it, and it can't be removed ({reason(error)})")
            )
    if removed:
        notes.append(f"{folder}: an earlier run was killed; {counted(removed, 'unfinished file')} removed")
    return notes


def _left_in(folder: Path) -> Iterator[_Left]:
    for path in folder.glob(".*.partial*"):
        named = _NAME.fullmatch(path.name)
        suffix = named["suffix"] or "" if named else ""
        is_helping = suffix in _HELPERS and any(path.with_suffix(kept).exists() for kept in _KEPT)
        if named and not is_helping and path.is_file():
            yield _Left(path, named["stem"], suffix)


def _keep(left: _Left, keep: Callable[[Path, Path], str]) -> str:
    """Recovers one file; returns a sentence for the user."""
    kept = _free_name(left)
    whole = left.path.with_suffix(".copy")
    try:
        what = keep(left.path, whole)
        if what:
            whole.replace(kept)
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(
            f"{left.path}: an earlier run was killed, and what it left can't be copied ({reason(error)}); make room, or"
            " remove it"
        ) from error
    finally:
        whole.unlink(missing_ok=True)
    left.path.unlink(missing_ok=True)
    left.path.with_suffix(".times").unlink(missing_ok=True)
    name = left.path.with_name(f"{left.stem}{left.suffix}")
    if not what:
        return f"{name}: an earlier run was killed before it had written anything"
    return f"{name}: an earlier run was killed; what it had written, {what}, is kept in {kept}"


def _free_name(left: _Left) -> Path:
    number = 1
    while (path := left.path.with_name(f"{left.stem}.recovered-{number}{left.suffix}")).exists():
        number += 1
    return path


def _keep_video(path: Path, whole: Path) -> str:
    cut_to_whole_fragments(path)
    try:
        frames = copy_for_players(path, whole)
    except av.error.FFmpegError:
        if path.stat().st_size:  # it holds something that can't be copied
            raise
        frames = 0
    return counted(frames, "frame") if frames else ""


def _keep_maps(path: Path, whole: Path) -> str:
    try:
        maps = recover_npz(path, whole)
    except (ValueError, struct.error, FileNotFoundError):  # not even the first map is whole
        return ""
    return counted(maps, "map") if maps else ""


def _keep_lines(path: Path, whole: Path) -> str:
    """Keeps whole lines; a power cut may leave zeros after them."""
    data = path.read_bytes().partition(b"\0")[0]
    data = data[: data.rfind(b"\n") + 1]
    lines = data.count(b"\n") - 1  # without the header
    whole.write_bytes(data)
    return counted(lines, "line") if lines > 0 else ""


_KEPT = {".mp4": _keep_video, ".npz": _keep_maps, ".csv": _keep_lines}
