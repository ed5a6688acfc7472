"""A dataset's video whose frames or maps are at a URL: run in a temporary folder, its maps sent when all are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from salema.runtime.errors import SalemaError
from salema.runtime.files.remote_path import is_remote, remote_errors
from salema.runtime.files.scratch import scratch_folder
from salema.runtime.output.map_sinks import others_beside
from salema.runtime.output.provenance import NAME
from salema.runtime.run.dataset_layouts import FrameFolder, film_frames
from salema.runtime.run.summary import Summary

Run = Callable[[FrameFolder], Summary | None]
"""Runs a video whose files are all on this machine."""


def run_at_home(video: FrameFolder, run: Run) -> Summary | None:
    """Runs a video; what is at a URL is fetched first and sent in the end.

    Nothing is sent of a run that failed or was interrupted. The record of what made the maps is sent last: where it is,
    all maps are.

    Raises:
        SalemaError: see `run`, with URLs in place of the temporary folder's files.
        VideoError: a file can't be fetched or sent.
    """
    source, target = _source(video), video.folder
    if not (is_remote(source) or is_remote(target)):
        return run(video)
    with scratch_folder() as folder:
        local = _fetched(video, folder) if is_remote(source) else video
        if is_remote(target):
            local = replace(local, maps=tuple(folder / "maps" / path.name for path in local.maps))
        places = {str(folder / "frames"): str(source), str(folder / "maps"): str(target)}
        try:
            summary = run(local)
        except SalemaError as error:
            raise type(error)(_renamed(str(error), places)) from error
        if summary is not None and summary.ended_by is None and is_remote(target):
            notes = _send(local.folder, target)
            summary = replace(summary, notes=(*summary.notes, *notes))
        return summary and _with_urls(summary, places)


def _source(video: FrameFolder) -> Path:
    return (video.film or video.frames[0]).parent


def _with_urls(summary: Summary, places: dict[str, str]) -> Summary:
    error, ended_by = (text and _renamed(text, places) for text in (summary.error, summary.ended_by))
    return replace(
        summary, error=error, ended_by=ended_by, notes=tuple(_renamed(note, places) for note in summary.notes)
    )


def _renamed(text: str, places: dict[str, str]) -> str:
    for place, url in places.items():
        text = text.replace(place, url)
    return text


def _fetched(video: FrameFolder, folder: Path) -> FrameFolder:
    """Fetches a video's frames or file; returns it with the fetched ones."""
    home = folder / "frames"
    home.mkdir()
    wanted: list[Any] = [video.film] if video.film else list(video.frames)
    here = [home / path.name for path in wanted]
    with remote_errors(_source(video)):
        wanted[0].files.get([path.path for path in wanted], [str(path) for path in here])
    if not video.film:
        return replace(video, frames=tuple(here))
    frames = film_frames(here[0])
    maps = tuple(video.folder / video.map_name(number) for number in range(1, len(frames) + 1))
    return replace(video, film=here[0], frames=frames, maps=maps)


def _send(folder: Path, target: Any) -> list[str]:
    """Sends the maps in a folder, and then their record. An older record goes first: it describes other maps.

    It returns a sentence if other maps are there already, as of an earlier run with more frames.
    """
    maps = sorted(path for path in folder.iterdir() if path.name != NAME)
    with remote_errors(target):
        record = (target / NAME).path
        if target.files.exists(record):
            target.files.rm_file(record)
        target.mkdir()
        target.files.put([str(path) for path in maps], [(target / path.name).path for path in maps])
        target.files.put_file(str(folder / NAME), record)
    return others_beside(target, {path.name for path in maps})
