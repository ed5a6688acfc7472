"""Photographs with fixations: a folder of images, and the points in an `.npz` file; docs/training.md has the layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.runtime.errors import MapError, VideoError
from salema.runtime.files.bounded_files import check_file
from salema.runtime.files.image_file import decode_file
from salema.runtime.sources.source import IMAGES
from salema.training.data.clip import Clip, GazeSet, Seen, Shot
from salema.training.data.kept import Kept
from salema.training.data.targets import BLUR, blurred, count_fixations
from salema.training.data.views import Colours, View, between, random_view

_MOST_BYTES = 1 << 30  # of the points: OSIE's are 1 MB
_MOST_PIXELS = 1 << 19  # of a picture that is kept: three times a side of 192x256, and all of 800x600
_MOST_KEPT_BYTES = 1 << 30  # of pictures, by each process: OSIE's 700 of 800x600
_FEWEST = 5  # fixations of a part; with fewer the whole picture is taken
_WHOLE, _LEAST = 0.4, 0.6  # how many pictures stay whole, and the least part of the others
_CUTS = 0.5  # of the clips, how many have a cut to another picture in them
_ARRAYS = ("names", "image", "x", "y")


class Photographs(GazeSet):
    """Photographs, each with its fixations; a `GazeSet`.

    Args:
        folder: of the `.npz` file; the images are in it, or in `images/` there.

    Raises:
        VideoError: there is no such folder, or an image is missing.
        MapError: there is no points file, or several, or it is damaged.
    """

    are_photographs = True
    layout = "other"
    _by_video = ("names", "lengths", "_points", "_paths")

    def __init__(self, folder: Path) -> None:
        self.name = folder.resolve().name
        points = read_points(folder)
        self.names = tuple(sorted(points))
        self.lengths = (1,) * len(self.names)
        self._points = tuple(points[name] for name in self.names)
        self._paths = tuple(_find_image(folder, name) for name in self.names)

    def maps_of(self, index: int) -> tuple[str, tuple[str, ...]]:
        """See `GazeSet`; where `salema-run` writes the map of an image, given with others."""
        return self._paths[index].stem, ("0001",)

    def clip(
        self, index: int, start: int, frames: int, size_hw: tuple[int, int], rng: np.random.Generator | None
    ) -> Clip:
        """See `GazeSet`; several frames are a pan and a zoom over the photograph, and at times a cut to another."""
        del start
        if rng is None:
            return self._render([Shot(index, 0, View())] * frames, size_hw, None)
        parts = [(index, frames)]
        if frames > 1 and rng.random() < _CUTS:
            first = int(rng.integers(1, frames))
            parts = [(index, first), (int(rng.integers(len(self.names))), frames - first)]
        path = [shot for picture, count in parts for shot in self._moved(picture, count, rng)]
        return self._render(path, size_hw, Colours(rng))

    def _moved(self, index: int, frames: int, rng: np.random.Generator) -> list[Shot]:
        first = self._part(index, rng)
        if frames == 1:
            return [Shot(index, 0, first)]
        last = random_view(rng, _LEAST, mirrored=first.mirrored)
        # As far as a camera moves in so many frames; over a second it may cross the picture.
        speed = min(frames / 30, 1)
        views = (between(first, last, speed * frame / (frames - 1)) for frame in range(frames))
        return [Shot(index, 0, view) for view in views]

    def _part(self, index: int, rng: np.random.Generator) -> View:
        whole = View(mirrored=bool(rng.random() < 0.5))  # noqa: PLR2004 - as often as not
        if rng.random() < _WHOLE:
            return whole
        part = random_view(rng, _LEAST, mirrored=whole.mirrored)
        return part if len(part.points(self._points[index])) >= _FEWEST else whole

    def _render(self, path: list[Shot], size_hw: tuple[int, int], colours: Colours | None) -> Clip:
        images = [_image(self._paths[shot.video]) for shot in path]
        pictures = [shot.view.picture(image, size_hw) for shot, image in zip(path, images, strict=True)]
        counts = [count_fixations(shot.view.points(self._points[shot.video]), size_hw) for shot in path]
        densities = [
            blurred(count, BLUR / shot.view.width, shot.view.part_hw((image.shape[0], image.shape[1])))
            for count, shot, image in zip(counts, path, images, strict=True)
        ]
        return Clip(
            np.stack([colours(picture) if colours else picture for picture in pictures]),
            np.stack(densities),
            np.stack(counts),
            np.array([count.any() for count in counts], np.float32),
            tuple(path),
        )

    def seen(self, index: int, every: int = 1) -> Iterator[Seen]:
        """See `GazeSet`; fixations and density are as large as the picture, which is made smaller if it is large."""
        del every
        image = _image(self._paths[index])
        counts = count_fixations(self._points[index], (image.shape[0], image.shape[1]))
        yield Seen(image, blurred(counts, BLUR), counts > 0)


def _read_image(path: Path) -> NDArray[np.uint8]:
    """Reads an image, uint8 BGR; one of more pixels than any network takes is made smaller."""
    image = cast("NDArray[np.uint8]", decode_file(path, cv2.IMREAD_COLOR, VideoError))
    share = (_MOST_PIXELS / (image.shape[0] * image.shape[1])) ** 0.5
    if share >= 1:
        return image
    height, width = (max(int(share * side), 1) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


_image = Kept(_read_image, _MOST_KEPT_BYTES)


def read_points(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Reads the fixations of each photograph, `(n, 2)`, x and y as fractions of width and height, by its name.

    Raises:
        VideoError: there is no such folder.
        MapError: there is no points file, or several, or it is damaged, or its arrays do not fit each other.
    """
    if not folder.is_dir():
        raise VideoError(f"{folder}: no such folder; name the one that holds the photographs and their fixations")
    files = sorted(folder.glob("*.npz"))
    if len(files) != 1:
        raise MapError(f"{folder}: holds {len(files)} .npz files; one with the fixations expected")
    check_file(files[0], _MOST_BYTES, MapError)
    try:
        with np.load(files[0], allow_pickle=False) as archive:
            arrays = [archive[name] for name in _ARRAYS]
        names = names_of(arrays[0])
        image = arrays[1]
        points = np.stack(arrays[2:], 1).astype(np.float32)
        found = {name: points[image == index] for index, name in enumerate(names)}
    except Exception as error:  # a damaged archive can fail anywhere in its reader
        raise MapError(f"{files[0]}: can't be read; arrays {', '.join(_ARRAYS)} expected") from error
    _check_points(files[0], names, image, points)
    empty = [name for name, own in found.items() if not len(own)]
    if empty:
        raise MapError(f"{files[0]}: {empty[0]} has no fixation; take it out of names")
    return found


def names_of(names: NDArray[Any]) -> list[str]:
    """Returns the names that a points file holds, as text or as bytes."""
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist()]


def _check_points(file: Path, names: list[str], image: NDArray[np.integer[Any]], points: NDArray[np.float32]) -> None:
    if not len(points):
        raise MapError(f"{file}: holds no fixation; give image, x and y of each")
    if not np.isfinite(points).all() or points.min() < 0 or points.max() > 1:
        raise MapError(f"{file}: x and y must lie between 0 and 1, as fractions of width and height")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise MapError(f"{file}: names has {twice[0]} twice; give each photograph once")
    outside = image[~np.isin(image, np.arange(len(names)))]
    if len(outside):
        raise MapError(f"{file}: image holds {outside[0]}, and there are {len(names)} names, counted from 0")


def _find_image(folder: Path, name: str) -> Path:
    suffixes = [*sorted(IMAGES), *sorted(suffix.upper() for suffix in IMAGES)]
    for stem in (folder / "images" / name, folder / name):
        for path in (stem, *(stem.with_name(stem.name + suffix) for suffix in suffixes)):
            if path.suffix.lower() in IMAGES and path.is_file():
                return path
    raise VideoError(f"{folder}: holds no image called {name}; it is named in the fixations")
