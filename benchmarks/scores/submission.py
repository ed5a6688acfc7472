"""A submission to DHF1K: `method/<video>/<frame>.png` of the videos 0701 to 1000, named as the frames are."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from salema.benchmarks.maps.grey_png import decode_grey_png
from salema.benchmarks.maps.ground_truth import frame_key, subfolders
from salema.benchmarks.maps.predictions import find_predictions
from salema.runtime.errors import MapError, MissingDependencyError, UsageError, reason
from salema.runtime.files.bounded_files import MOST_IMAGE_BYTES, read_file
from salema.runtime.files.image_file import decode_image
from salema.runtime.files.remote_path import was_url
from salema.runtime.files.whole_files import written_aside
from salema.runtime.output.provenance import NAME, read_provenance
from salema.runtime.run.dataset_layouts import list_videos
from salema.runtime.wording import counted, listed

FRAME_WH = (640, 360)


@dataclass(frozen=True)
class Submission:
    """The maps to pack, and what is wrong with them.

    Attributes:
        files: every map's file by its name in the archive, without the method's folder.
        videos: how many videos they are of.
        problems: what the benchmark would refuse, a sentence each; empty if there is nothing.
        notes: other remarks for the user, a sentence each.
    """

    files: dict[str, Path]
    videos: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def check_submission(
    root: Path,
    numbers: Sequence[int],
    *,
    source: Path | None = None,
    weights: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Submission:
    """Checks names, counts and sizes.

    Args:
        root: folder of the predictions, with a folder for each video.
        numbers: the videos that must be there.
        source: DHF1K's folder, whose frames the maps must be those of; None: frames must count from 1 without a gap.
        weights: which `<weights>_predictions`, where there are several.
        progress: called with the number of maps checked since the last call.

    Raises:
        MapError: there is no such folder, or it is unclear which is meant.
        VideoError: `source` holds no frames of these videos.
        UsageError: no video was asked for.
        MissingDependencyError: Pillow is not installed.
    """
    given = _given_folders(root, numbers, weights)
    folders = {int(path.name): path for path in given}
    present = sorted(folders.keys() & set(numbers))
    frames = _source_frames(source, numbers)
    problems = _check_folders(given, folders, numbers)
    problems += [f"{number:04d}: --src holds no frames of it" for number in present if source and number not in frames]
    files: dict[str, Path] = {}
    sizes: dict[tuple[int, int], Path] = {}
    for number in present:
        maps, wrong_names = _check_names(folders[number], frames.get(number))
        problems += [*wrong_names, *_check_record(folders[number])]
        for name, path in maps.items():
            problems += _check_image(path, sizes)
            files[f"{number:04d}/{name}.png"] = path
            progress(1)
    problems += _check_sizes(sizes)
    return Submission(files, len(present), tuple(problems), _notes(sizes, counts_checked=source is not None))


def _given_folders(root: Path, numbers: Sequence[int], weights: str | None) -> list[Path]:
    if not numbers:
        raise UsageError("--start is greater than --end: no video to pack")
    if not root.is_dir():
        raise MapError(f"{root}: no such folder; name the one that holds the predictions")
    return [path for path in subfolders(find_predictions(root, weights)) if path.name.isdecimal()]


def _check_sizes(sizes: Mapping[tuple[int, int], Path]) -> list[str]:
    """Returns what is wrong with the maps' sizes, of each of which one map is given."""
    if len(sizes) <= 1:
        return []
    shown = (f"{wide}x{high} ({path})" for (wide, high), path in sizes.items())
    return [f"maps are of {len(sizes)} sizes, and should be of one: {listed(shown)}"]


def _notes(sizes: Iterable[tuple[int, int]], *, counts_checked: bool) -> tuple[str, ...]:
    other = [f"maps are {wide}x{high}; DHF1K's frames are 640x360" for wide, high in sizes if (wide, high) != FRAME_WH]
    return (*other[:1], *([] if counts_checked else ["frame counts not checked; give --src"]))


def check_method(method: str) -> None:
    """Refuses, before long work, a method's name that can't name its folder.

    Raises:
        UsageError: it is empty, holds a slash or begins with a dot.
    """
    if not method or any(sign in method for sign in "/\\") or method.startswith("."):
        raise UsageError(f"--method {method}: give a name without slashes, which does not begin with a dot")


def check_local(places: Mapping[str, Path | None]) -> None:
    """Refuses, before long work, URLs, by the option that each was given for.

    Raises:
        UsageError: one is a URL.
    """
    for option, path in places.items():
        if path is not None and was_url(path):
            raise UsageError(f"{option}: pack works on this machine's files, and takes no URL; copy them from or to it")


def pack_submission(found: Submission, target: Path, method: str) -> None:
    """Writes the archive, with all maps in a folder named `method`.

    Raises:
        OutputError: it can't be written.
    """
    # PNG doesn't get smaller; files without a date get 1980.
    with (
        written_aside(target) as aside,
        zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive,
    ):
        for name, path in found.files.items():
            archive.write(path, f"{method}/{name}")


def _source_frames(source: Path | None, numbers: Sequence[int]) -> dict[int, list[str]]:
    if source is None:
        return {}
    videos = list_videos("DHF1K", source, source, "", start=min(numbers), end=max(numbers))
    return {int(video.name): [path.stem for path in video.frames] for video in videos}


def _check_folders(given: Sequence[Path], folders: Mapping[int, Path], numbers: Sequence[int]) -> list[str]:
    """Returns what is wrong with the videos' folders."""
    missing = [f"{number:04d}" for number in numbers if number not in folders]
    extra = [path.name for number, path in folders.items() if number not in numbers]
    problems = (
        [f"{counted(len(missing), 'video')} {_or(missing, 'has', 'have')} no folder: {listed(missing)}"]
        if missing
        else []
    )
    problems += [
        f"{path.parent}: holds {path.name} and {folders[int(path.name)].name}, which are the same video; remove one"
        for path in given
        if folders[int(path.name)] != path
    ]
    if extra:
        what = "folder is of another video" if len(extra) == 1 else "folders are of other videos"
        problems.append(f"{len(extra)} {what} than {numbers[0]} to {numbers[-1]}: {listed(extra)}")
    return problems


def _check_names(folder: Path, frames: Sequence[str] | None) -> tuple[dict[str, Path], list[str]]:
    """Returns a video's maps by the names they should have, in order, and what is wrong with the names they have."""
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")]  # such as Finder's .DS_Store
    images = {path for path in paths if path.suffix == ".png" and path.stem.isdecimal()}
    strange = sorted(path.name for path in paths if path not in images and path.name != NAME)
    problems = [f"{folder}: holds {listed(strange)}; only numbered .png files belong here"] if strange else []
    by_key: Mapping[str, Path] = {frame_key(path.stem): path for path in images}
    if len(by_key) < len(images):
        problems.append(f"{folder}: holds two maps of one number")
    last = max((int(key) for key in by_key), default=0)
    names = [f"{number:04d}" for number in range(1, last + 1)] if frames is None else list(frames)
    gone = [name for name in names if frame_key(name) not in by_key]
    more = sorted(by_key.keys() - {frame_key(name) for name in names}, key=int)
    if not images:
        problems.append(f"{folder}: holds no map")
    elif gone:
        problems.append(f"{folder}: {counted(len(gone), 'frame')} {_or(gone, 'has', 'have')} no map: {listed(gone)}")
    if more:
        problems.append(f"{folder}: {counted(len(more), 'map')} {_or(more, 'is', 'are')} of no frame: {listed(more)}")
    return {name: by_key[frame_key(name)] for name in names if frame_key(name) in by_key}, problems


def _check_record(folder: Path) -> list[str]:
    """Returns what is wrong with the maps by the record of the run that made them; nothing where there is none."""
    made = read_provenance(folder)
    if made is None or made.complete:
        return []
    return [f"{folder}: by its {NAME} the run did not reach its end ({made.why_incomplete}); run it again"]


def _check_image(path: Path, sizes: dict[tuple[int, int], Path]) -> list[str]:
    """Returns what is wrong with one map; adds its size to `sizes`."""
    try:
        data = read_file(path, MOST_IMAGE_BYTES, MapError)
    except MapError as error:
        return [str(error)]
    quick = decode_grey_png(data)
    if quick is not None:
        sizes.setdefault((quick.shape[1], quick.shape[0]), path)
        return []
    try:
        from PIL import Image  # noqa: PLC0415 - in the extra `eval`
    except ImportError as error:
        raise MissingDependencyError(
            f"checking maps needs Pillow ({reason(error)}); install it with: pip install 'salema[eval]'"
        ) from error
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.verify()  # the whole file, by its check sums
            kind, size = (image.format, image.mode), image.size
        decode_image(path, data, cv2.IMREAD_UNCHANGED, MapError)  # under right check sums there may be too few rows
    except MapError as error:
        return [str(error)]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's for damaged PNG
        return [f"{path}: can't be read as an image ({reason(error)})"]
    sizes.setdefault(size, path)
    return [] if kind == ("PNG", "L") else [f"{path}: is {kind[0]} of kind {kind[1]}; 8-bit grey PNG expected"]


def _or(names: Sequence[str], one: str, several: str) -> str:
    return one if len(names) == 1 else several
