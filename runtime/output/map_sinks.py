"""Maps: as PNG files in a folder, or raw in one NPZ file."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from salema.runtime.errors import OutputError
from salema.runtime.files.disk_sync import sync_soon
from salema.runtime.files.whole_files import make_folder, translated, write_bytes, written_aside
from salema.runtime.output.map_size import MapSize, levels_at
from salema.runtime.output.npz_file import NpzFile, times_file
from salema.runtime.output.provenance import remove_provenance
from salema.runtime.output.sink import Drawn, Sink
from salema.runtime.postprocess import to_levels
from salema.runtime.wording import counted

MAP_BITS = (8, 16)
published_name = "{:04d}.png".format  # a map's file, as the published code names it for DHF1K


class MapSink(Sink):
    """A folder of PNG files at network or source size, named by the frame's number, which counts from 1."""

    def __init__(self, folder: Path, bits: int, map_size: MapSize, name_of: Callable[[int], str]) -> None:
        self.path = folder
        self._folder, self._bits, self._name_of, self._count = folder, bits, name_of, 0
        self._is_large = map_size == "source"
        self.wants_raw = self._is_large or bits != MAP_BITS[0]

    def _open(self, stack: ExitStack) -> None:  # noqa: ARG002
        make_folder(self._folder)

    def write(self, drawn: Drawn) -> None:
        """See `Sink`."""
        if not self._count:
            remove_provenance(self._folder)  # it describes maps that are about to be replaced
        path = self._folder / self._name_of(self._count + 1)
        write_bytes(path, cv2.imencode(".png", self._image(drawn))[1].tobytes())
        sync_soon(path)
        self._count += 1

    def _image(self, drawn: Drawn) -> NDArray[np.uint8] | NDArray[np.uint16]:
        if drawn.pictures.saliency is None:
            return drawn.pictures.grey
        if self._is_large:
            height, width = drawn.frame.image_bgr.shape[:2]
            return levels_at(drawn.pictures.saliency, drawn.pictures.limits, (height, width), self._bits)
        return to_levels(drawn.pictures.saliency, drawn.pictures.limits, self._bits)

    def finish(self, *, complete: bool) -> list[str]:  # noqa: ARG002
        """See `Sink`."""
        names = {self._name_of(number) for number in range(1, self._count + 1)}
        return others_beside(self._folder, names)


def others_beside(folder: Path, names: set[str]) -> list[str]:
    """Returns a sentence if a folder holds other PNG files than those of these names."""
    others = sum(path.suffix == ".png" and path.name not in names for path in folder.iterdir())
    more = counted(others, "PNG file")
    return [f"{folder} also holds {more} that this run did not write"] if others else []


class NpzSink(Sink):
    """One NPZ file: `maps`, float32 `[T, H, W]`, raw; `times_s`, float64 `[T]`."""

    wants_raw = True

    def __init__(self, path: Path, time_base: Fraction) -> None:
        self.path = path
        self._path, self._time_base, self._times_s = path, time_base, array("d")

    def _open(self, stack: ExitStack) -> None:
        make_folder(self._path.parent)
        aside = stack.enter_context(written_aside(self._path, durable=True))
        stack.enter_context(translated(self._path))
        self._file = stack.enter_context(NpzFile(aside))
        self._times = stack.enter_context(times_file(aside))

    def write(self, drawn: Drawn) -> None:
        """See `Sink`."""
        assert drawn.pictures.saliency is not None
        with translated(self._path):
            self._file.append(drawn.pictures.saliency)
            self._times_s.append(float(drawn.frame.pts * self._time_base))
            self._times.write(self._times_s[-1:].tobytes())

    def finish(self, *, complete: bool) -> list[str]:  # noqa: ARG002
        """See `Sink`."""
        if not self._times_s:
            raise OutputError(f"{self._path}: can't be written, not even its first map; make room")
        with translated(self._path):
            self._file.finish(times_s=np.asarray(self._times_s, "<f8"))
        return []
