"""Which videos or photographs a run trains on, and which it is validated on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from salema.runtime.errors import MapError, UsageError, VideoError
from salema.runtime.run.dataset_layouts import DATASETS, IN_IMAGES, testing_folder
from salema.training.data.clip import GazeSet
from salema.training.data.photographs import Photographs
from salema.training.data.videos import Videos
from salema.training.options import DataOptions

PHOTOGRAPHS = "photographs"
_TRAINED, _HELD_OUT = (1, 600), "601-700"  # DHF1K's own split
_EVERY = "14:3"
_FEWEST = 2
Say = Callable[[str], None]


def choose_data(options: DataOptions, say: Say, *, unlabelled: bool = False) -> tuple[GazeSet, GazeSet | None]:
    """Opens what is trained on, and what is validated on (None for nothing).

    `say` takes a sentence on what is left out. With `unlabelled` videos without ground truth are trained on too, as a
    teacher wants them.

    Raises:
        UsageError: an option is wrong, or one is missing, or the videos are those of a test set.
        VideoError, MapError: there are no frames, or no ground truth.
    """
    source = options.src
    if source is None:
        raise UsageError("give the dataset's folder with --src DIR")
    if options.dataset not in {*DATASETS, PHOTOGRAPHS}:
        raise UsageError(f"--dataset {options.dataset}: not one of {', '.join((*DATASETS, PHOTOGRAPHS))}")
    if options.dataset == "DHF1K":
        return _dhf1k(source, options, say, unlabelled=unlabelled)
    if (options.start, options.end) != (None, None):
        raise UsageError(f"--start and --end number the videos of DHF1K; {options.dataset} has names")
    every = _EVERY if options.val is None else options.val
    elsewhere = Path(every)
    if every == "none" or elsewhere.is_dir():
        everything = _trained(source, options, say, unlabelled=unlabelled)
        return everything, None if every == "none" else _open(elsewhere, _truth_of(elsewhere, options), options, say)
    held_out = _parse_every(every)
    whole = _trained(source, options, say, unlabelled=unlabelled)
    chosen = [[i for i in range(len(whole.names)) if held_out(i) == is_held] for is_held in (False, True)]
    _check_split(every, chosen)
    return whole.only(chosen[0]), whole.only(chosen[1])


def _truth_of(held_out: Path, options: DataOptions) -> Path | None:
    return options.gt if held_out == options.src else None


def _trained(source: Path, options: DataOptions, say: Say, *, unlabelled: bool) -> GazeSet:
    truth = None if options.gt is None else _training_folder("--gt", options.dataset, options.gt)
    return _open(_training_folder("--src", options.dataset, source), truth, options, say, unlabelled=unlabelled)


def _training_folder(option: str, dataset: str, folder: Path) -> Path:
    """Returns the folder of the videos to train on: `<dataset>/training` or `training`, where there is one.

    Elsewhere a dataset's folder means `testing`, of which no network that is scored there may have seen anything.
    """
    if dataset not in IN_IMAGES:
        return folder
    places = [place for place in (folder / dataset / "training", folder / "training") if place.is_dir()]
    tested = testing_folder(dataset, folder)
    if not places and tested != folder:
        raise UsageError(
            f"{option} {folder}: holds {tested.relative_to(folder)}, the test set, and no folder"
            f" {tested.relative_to(folder).with_name('training')}; name the folder of the videos to train on itself"
        )
    return places[0] if places else folder


def _open(folder: Path, truth: Path | None, options: DataOptions, say: Say, *, unlabelled: bool = False) -> GazeSet:
    if options.dataset == PHOTOGRAPHS:
        return Photographs(folder)
    return Videos(options.dataset, folder, truth, None, None, say, unlabelled=unlabelled)


def _dhf1k(source: Path, options: DataOptions, say: Say, *, unlabelled: bool) -> tuple[GazeSet, GazeSet | None]:
    first = _TRAINED[0] if options.start is None else options.start
    last = _TRAINED[1] if options.end is None else options.end
    if first > last:
        raise UsageError(f"--start {first} is greater than --end {last}: no video to train on")
    trained = Videos("DHF1K", source, options.gt, first, last, say, unlabelled=unlabelled)
    numbers = _HELD_OUT if options.val is None else options.val
    if numbers == "none":
        return trained, None
    match = re.fullmatch(r"(\d+)-(\d+)", numbers)
    if not match or int(match[1]) > int(match[2]):
        raise UsageError(f"--val {numbers}: not two numbers such as 601-700, or none")
    low, high = int(match[1]), int(match[2])
    if low <= last and first <= high:
        raise UsageError(f"--val {numbers}: is trained on, as --start {first} --end {last} say; choose others")
    try:
        return trained, Videos("DHF1K", source, options.gt, low, high, say)
    except (MapError, VideoError) as error:
        default = ", the default," if options.val is None else ""
        raise type(error)(f"--val {numbers}{default} can't be validated on: {error}; choose others, or none") from error


def _parse_every(text: str) -> Callable[[int], bool]:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or int(match[1]) < _FEWEST or int(match[2]) >= int(match[1]):
        raise UsageError(
            f"--val {text}: not a folder, and not N:K, such as 14:3 for every 14th from the 3rd on, or none"
        )
    return lambda index: index % int(match[1]) == int(match[2])


def _check_split(every: str, chosen: list[list[int]]) -> None:
    if not all(chosen):
        count = len(chosen[0]) + len(chosen[1])
        raise UsageError(
            f"--val {every}: leaves nothing to train on, or nothing to validate on, of {count}; or say none"
        )
