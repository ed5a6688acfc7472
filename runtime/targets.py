"""What is written for each source, and under which names."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from salema.runtime.errors import UsageError
from salema.runtime.map_size import check_map_size
from salema.runtime.sinks import MAP_BITS, CsvSink, MapSink, NpzSink, StdoutCsvSink, VideoSink
from salema.runtime.window import WindowSink

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    from salema.runtime.map_size import MapSize
    from salema.runtime.playback import Playback
    from salema.runtime.postprocess import Look
    from salema.runtime.sinks import Sink
    from salema.runtime.sources import Source


STDOUT = Path("-")
"""In place of the CSV file: standard output."""


@dataclass(frozen=True)
class Targets:
    """What is written for one source.

    Attributes:
        video: MP4 file, or None.
        maps: folder for PNG files, or None.
        map_bits: 8 or 16, of these.
        map_size: one of `MAP_SIZES`, of these.
        npz: NPZ file with the raw maps, or None.
        csv: CSV file with a line for each frame, `STDOUT`, or None.
        show: whether to show the picture in a window.

    Raises:
        UsageError: nothing is asked for, or a name can't be right.
    """

    video: Path | None = None
    maps: Path | None = None
    map_bits: int = 8
    npz: Path | None = None
    csv: Path | None = None
    show: bool = False
    map_size: MapSize = "network"

    def __post_init__(self) -> None:
        if not (self.files or self.show or self.csv):
            raise UsageError("--no-video leaves nothing to write; give --maps DIR, --npz, --csv or --show, and no -o")
        if self.map_bits not in MAP_BITS:
            raise UsageError(f"--map-bits {self.map_bits}: not one of 8, 16")
        check_map_size(self.map_size)
        for option, path, suffix in (
            ("-o", self.video, ".mp4"),
            ("--npz", self.npz, ".npz"),
            ("--csv", self.csv, ".csv"),
        ):
            if path is not None and path != STDOUT and path.suffix.lower() != suffix:
                raise UsageError(f"{option} {path}: not a name that ends in {suffix}")

    @property
    def csv_to_stdout(self) -> bool:
        """Whether the CSV goes to standard output, so that nothing else can."""
        return self.csv == STDOUT

    @property
    def files(self) -> list[Path]:
        """Everything that is written, but for standard output."""
        return [path for path in (self.video, self.maps, self.npz, self.csv) if path is not None and path != STDOUT]

    @contextmanager
    def opened(self, source: Playback, look: Look, stop: threading.Event) -> Iterator[list[Sink]]:
        """Opens a sink for each.

        Raises:
            OutputError: one can't be written.
            BackendError: there is no display to show anything on.
        """
        sinks: list[Sink] = []
        if self.show:
            sinks.append(WindowSink(source, stop))
        if self.video is not None:
            sinks.append(VideoSink(self.video, source, look))
        if self.maps is not None:
            sinks.append(MapSink(self.maps, self.map_bits, self.map_size))
        if self.npz is not None:
            sinks.append(NpzSink(self.npz, source.time_base))
        if self.csv is not None:
            kind = StdoutCsvSink if self.csv_to_stdout else CsvSink
            sinks.append(kind(self.csv, source.time_base))
        with ExitStack() as stack:
            yield [stack.enter_context(sink) for sink in sinks]


def plan_targets(
    sources: Sequence[Source],
    *,
    output: Path | None = None,
    video: bool = True,
    maps: Path | None = None,
    map_bits: int = 8,
    map_size: MapSize = "network",
    npz: Path | None = None,
    csv: Path | None = None,
    show: bool = False,
) -> list[Targets]:
    """Gives each source its own names: with several sources, each option names a folder.

    Args:
        sources: what is run.
        output: the MP4 file, or the folder for `<name>_saliency.mp4`; None for the working directory.
        video: whether to write MP4 at all.
        maps: folder for the PNG files, or for folders of them.
        map_bits: 8 or 16.
        map_size: one of `MAP_SIZES`.
        npz: the NPZ file, or the folder for `<name>.npz`.
        csv: the CSV file, the folder for `<name>.csv`, or `STDOUT`.
        show: whether to show the pictures.

    Raises:
        UsageError: nothing is asked for, a name can't be right, or a source would be overwritten.
    """
    if not video and output is not None:
        raise UsageError("--no-video and -o contradict each other")
    several = len(sources) > 1
    if several and csv == STDOUT:
        raise UsageError("--csv -: several sources are given, and their lines would be mixed; name a folder")
    planned = [
        Targets(
            _named(output or Path(), several or output is None, f"{source.name}_saliency.mp4", "-o") if video else None,
            None if maps is None else maps / source.name if several else maps,
            map_bits,
            None if npz is None else _named(npz, several, f"{source.name}.npz", "--npz"),
            csv if csv is None or csv == STDOUT else _named(csv, several, f"{source.name}.csv", "--csv"),
            show,
            map_size,
        )
        for source in sources
    ]
    _check_sources_are_safe(sources, planned)
    return planned


def _check_sources_are_safe(sources: Sequence[Source], planned: Sequence[Targets]) -> None:
    read = {os.path.realpath(path) for source in sources for path in source.files}  # resolve() raises where links loop
    folders = {os.path.realpath(path.parent) for source in sources for path in source.images}
    for targets in planned:
        for path in targets.files:
            real = os.path.realpath(path)
            if real in read:
                raise UsageError(f"{path}: is the source itself; choose another name with -o")
            if path == targets.maps and real in folders:
                raise UsageError(
                    f"{path}: holds the frames of a source, which maps would overwrite; choose another --maps"
                )


def _named(path: Path, is_folder: bool, name: str, option: str) -> Path:
    if is_folder and path.suffix.lower() == Path(name).suffix:
        raise UsageError(f"{option} {path}: several sources are given; name a folder")
    return path / name if is_folder or path.is_dir() or not path.suffix else path
