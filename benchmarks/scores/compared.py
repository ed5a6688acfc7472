"""What `salema-eval` scores: one source of maps, or two that are compared."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salema.benchmarks.maps.predictions import ModelMaps, PredictedMaps
from salema.runtime.errors import UsageError

if TYPE_CHECKING:
    from salema.benchmarks.maps.predictions import MapSource


def predicted(places: list[Path], options: dict[str, Any], weights: str | None) -> list[MapSource]:
    """Returns the maps on disk in one or two places.

    Args:
        places: folders of maps.
        options: of `PredictedMaps`.
        weights: which `<weights>_predictions`, for both or, with a comma, for each; None where there is one.

    Raises:
        MapError: see `PredictedMaps`.
        UsageError: the two are the same maps, or there are more weights than places.
    """
    named = [name.strip() or None for name in (weights or "").split(",")]
    if len(named) > len(places):
        raise UsageError(f"--weights {weights}: give one name, or with --compare two, such as A,B")
    pairs = zip(places, [*named, *named], strict=False)
    sources = [PredictedMaps(root=place, weights=name, **options) for place, name in pairs]
    _refuse_itself([{_folder(video.files) for video in source.videos.values()} for source in sources])
    return _told_apart(sources, places)


def _folder(files: dict[int, Path]) -> Path | None:
    return next((file.resolve().parent for file in files.values()), None)


def running(
    places: list[Path], options: dict[str, Any], backend: str, device: str, opened: ExitStack
) -> list[MapSource]:
    """Returns the maps that one or two models give as they run.

    Args:
        places: folders of models.
        options: of `ModelMaps`.
        backend: as `salema-run` takes it.
        device: as `salema-run` takes it.
        opened: closes the models.

    Raises:
        SalemaError: a model can't be opened, or there is nothing to run it on.
        UsageError: the two are the same model.
    """
    from salema.runtime.cli.opening import Announced, Opening  # noqa: PLC0415 - most runs score files

    _refuse_itself([place.resolve() for place in places])
    sources: list[MapSource] = []
    for place in places:
        stream = opened.enter_context(Announced(Opening(place, backend, device, streams=1))())
        label = f"{Path(stream.spec.weights).stem} {stream.spec.precision}"
        sources.append(ModelMaps(stream=stream, label=label, **options))
    return _told_apart(sources, places)


def _refuse_itself(what: list[Any]) -> None:
    if what[1:] and what[0] == what[-1]:
        raise UsageError("--compare: that is what it would be compared with; name another, or two with --weights A,B")


def _told_apart(sources: Any, places: list[Path]) -> list[MapSource]:
    """Calls the two by their folders if their names are the same."""
    if len({source.label for source in sources}) < len(sources):
        for source, place in zip(sources, places, strict=True):
            source.label = str(place)
    return list(sources)
