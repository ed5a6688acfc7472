"""Which files are written for each source."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from salema.runtime.errors import UsageError
from salema.runtime.output.csv_sinks import CsvSink, StdoutCsvSink
from salema.runtime.output.map_sinks import MAP_BITS, MapSink, NpzSink, published_name
from salema.runtime.output.map_size import MapSize, check_map_size
from salema.runtime.output.sink import Sink
from salema.runtime.output.split_sink import SplitSink, is_part_of
from salema.runtime.output.video_sink import VideoSink
from salema.runtime.output.window import WindowSink
from salema.runtime.postprocess import Look
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.source import Source

_LEAST_MIN, _MOST_MIN = 0.01, 100_000.0
STDOUT = Path("-")
"""Stands for standard output in place of a CSV file."""


@dataclass(frozen=True)
class Outputs:
    """What is written for one source.

    Attributes:
        video: MP4 file, or None.
        maps: folder for PNG files, or None.
        npz: NPZ file for the raw maps, or None.
        csv: CSV file for a line per frame, `STDOUT`, or None.
        map_bits: bits of the PNG maps, 8 or 16.
        map_size: size of the PNG maps, one of `MAP_SIZES`.
        show: whether to show the picture in a window.
        split_minutes: length of the parts that MP4, NPZ and CSV are split into, or None for whole files.
        map_name: returns the name of a map's PNG file for the number of its frame, which counts from 1.

    Raises:
        UsageError: there is nothing to write, or a value is not allowed.
    """

    video: Path | None = None
    maps: Path | None = None
    npz: Path | None = None
    csv: Path | None = None
    map_bits: int = 8
    map_size: MapSize = "network"
    show: bool = False
    split_minutes: float | None = None
    map_name: Callable[[int], str] = published_name

    def __post_init__(self) -> None:
        if self.split_minutes is not None:
            if not _LEAST_MIN <= self.split_minutes <= _MOST_MIN:
                raise UsageError(
                    f"--split-minutes {self.split_minutes:g}: give minutes, {_LEAST_MIN:g} to {_MOST_MIN:g}"
                )
            if not {*self.files} - {self.maps}:
                raise UsageError("--split-minutes: there is nothing to split; give -o, --npz or --csv a file")
        if not (self.files or self.show or self.csv):
            raise UsageError("--no-video leaves nothing to write; give --maps DIR, --npz, --csv or --show, and no -o")
        if self.map_bits not in MAP_BITS:
            raise UsageError(f"--map-bits {self.map_bits}: not one of 8, 16")
        check_map_size(self.map_size)
        if self.maps is None and (self.map_bits, self.map_size) != (MAP_BITS[0], "network"):
            raise UsageError("--map-bits and --map-size go with --maps DIR; add that, or leave them out")
        for option, path, suffix in (
            ("-o", self.video, ".mp4"),
            ("--npz", self.npz, ".npz"),
            ("--csv", self.csv, ".csv"),
        ):
            if path is not None and path != STDOUT and path.suffix.lower() != suffix:
                raise UsageError(f"{option} {path}: not a name that ends in {suffix}")

    @property
    def csv_to_stdout(self) -> bool:
        """Whether the CSV goes to standard output, so that nothing else may."""
        return self.csv == STDOUT

    @property
    def files(self) -> list[Path]:
        """The files and the folder that are written."""
        return [path for path in (self.video, self.maps, self.npz, self.csv) if path is not None and path != STDOUT]

    @contextmanager
    def opened(self, playback: Playback, look: Look, stop: threading.Event) -> Iterator[list[Sink]]:
        """Opens a sink for each output.

        Raises:
            OutputError: one can't be written.
            BackendError: there is no display for `show`.
        """
        sinks: list[Sink] = []
        tick = playback.time_base
        if self.show:
            sinks.append(WindowSink(playback, stop))
        if self.video is not None:
            sinks.append(self._split(self.video, playback, lambda path, pts, _: VideoSink(path, playback, look, pts)))
        if self.maps is not None:
            sinks.append(MapSink(self.maps, self.map_bits, self.map_size, self.map_name))
        if self.npz is not None:
            sinks.append(self._split(self.npz, playback, lambda path, *_: NpzSink(path, tick)))
        if self.csv is not None and self.csv_to_stdout:
            sinks.append(StdoutCsvSink(self.csv, tick))
        elif self.csv is not None:
            sinks.append(self._split(self.csv, playback, lambda path, _, count: CsvSink(path, tick, count)))
        with ExitStack() as stack:
            yield [stack.enter_context(sink) for sink in sinks]

    def _split(self, path: Path, playback: Playback, open_part: Callable[[Path, int, int], Sink]) -> Sink:
        if self.split_minutes is None:
            return open_part(path, 0, 0)
        return SplitSink(path, self.split_minutes, open_part, playback.time_base, is_live=playback.is_live)


def plan_outputs(
    sources: Sequence[Source],
    *,
    output: Path | None,
    video: bool,
    maps: Path | None,
    npz: Path | None,
    csv: Path | None,
    map_bits: int,
    map_size: MapSize,
    show: bool,
    split_minutes: float | None,
) -> list[Outputs]:
    """Names the outputs of each source; with several sources, each option names a folder.

    Videos go into the working directory if there is no `output`; a folder's file is called `<name>_saliency.mp4`,
    `<name>.npz` or `<name>.csv`. The last four options are as in `Outputs`.

    Raises:
        UsageError: see `Outputs`; or a source would be overwritten.
    """
    if not video and output is not None:
        raise UsageError("--no-video and -o contradict each other")
    several = len(sources) > 1
    mp4 = output or Path() if video else None
    planned = [
        Outputs(*_places(source.name, mp4, maps, npz, csv, several=several), map_bits, map_size, show, split_minutes)
        for source in sources
    ]
    _check_sources_are_safe(sources, planned)
    return planned


def _check_sources_are_safe(sources: Sequence[Source], planned: Sequence[Outputs]) -> None:
    read = {os.path.realpath(path) for source in sources for path in source.files}  # resolve() raises on looping links
    folders = {os.path.realpath(path.parent) for source in sources for path in source.images}
    for outputs in planned:
        for path in outputs.files:
            real = os.path.realpath(path)
            is_split = outputs.split_minutes is not None and path != outputs.maps
            if real in read or (is_split and any(_is_part(Path(real), Path(other)) for other in read)):
                raise UsageError(f"{path}: is the source itself; choose another name with -o")
            if path == outputs.maps and real in folders:
                raise UsageError(
                    f"{path}: holds the frames of a source, which maps would overwrite; choose another --maps"
                )


def _is_part(output: Path, other: Path) -> bool:
    return (other.parent, other.suffix) == (output.parent, output.suffix) and is_part_of(output, other.stem)


def _places(
    name: str, mp4: Path | None, maps: Path | None, npz: Path | None, csv: Path | None, *, several: bool
) -> tuple[Path | None, Path | None, Path | None, Path | None]:
    for option, path in (("-o", mp4), ("--maps", maps), ("--npz", npz)):
        if path == STDOUT:
            raise UsageError(f"{option} -: only --csv goes to standard output; name a file or a folder")
    if several and csv == STDOUT:
        raise UsageError("--csv -: several sources are given, and their lines would be mixed; name a folder")
    return (
        _file(mp4, f"{name}_saliency.mp4", "-o", several=several),
        maps / name if maps is not None and several else maps,
        _file(npz, f"{name}.npz", "--npz", several=several),
        csv if csv == STDOUT else _file(csv, f"{name}.csv", "--csv", several=several),
    )


def _file(path: Path | None, name: str, option: str, *, several: bool) -> Path | None:
    if path is None:
        return None
    if several and path.suffix.lower() == Path(name).suffix:
        raise UsageError(f"{option} {path}: several sources are given; name a folder")
    return path / name if several or path.is_dir() or not path.suffix else path
