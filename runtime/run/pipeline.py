"""Runs a model over a whole source: decode, preprocess, step, postprocess and encode, in parallel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path

from salema.runtime.errors import KeptError, OutputError, SalemaError, UsageError, VideoError
from salema.runtime.output.outputs import Outputs
from salema.runtime.output.provenance import Provenance, model_facts, remove_provenance, source_facts, write_provenance
from salema.runtime.output.sink import Drawn, Sink
from salema.runtime.output.window import WindowClosedError
from salema.runtime.run.stage_threads import side_by_side
from salema.runtime.run.stages import Clock, Drawing, RunOptions
from salema.runtime.run.summary import STAGES, Summary
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import Source
from salema.runtime.spec import salema_version
from salema.runtime.stopping import stop_requested
from salema.runtime.stream import SaliencyStream
from salema.runtime.wording import counted


def process_video(
    stream: SaliencyStream,
    playback: Playback,
    outputs: Outputs,
    options: RunOptions | None = None,
    *,
    progress: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Runs a model from a source's first frame to its last, and writes the outputs.

    A signal, a source that breaks off, a failed output or a closed window ends it early; what was written is kept.

    The stream's state is reset. `progress` is called with the number of frames done since the last call. `stop`, once
    set, ends the run; None lets signals end it.

    Raises:
        UsageError: the model has a batch above 1, or an option doesn't fit it.
        ModelError: the model gave NaN or infinity; only maps are kept then.
        VideoError: the source gave no frame.
        OutputError: nothing could be written.
    """
    options = options or RunOptions()
    check_model(stream, options)
    stopping = stop_requested() if stop is None else nullcontext(stop)
    with stopping as asked, outputs.opened(playback, options.look, asked) as sinks:
        run = _Run(stream, playback, outputs, sinks, options, asked)
        with run.recorded_if_it_fails():
            run.take_all(progress)
        summary = run.finish()
        record = run.provenance(summary.ended_by)
    kept = [path for path in outputs.files if str(path) not in summary.lost]
    return replace(summary, notes=(*summary.notes, *_write_all(kept, record)))


def check_model(stream: SaliencyStream, options: RunOptions) -> None:
    """Refuses a model that can run no source this way.

    Raises:
        UsageError: the model has a batch above 1, or no average, which `time_aware` needs.
    """
    if options.time_aware and stream.spec.coefficient is None:
        raise UsageError(f"--time-aware: {stream.spec.architecture} has no average whose weight could follow the time")
    if stream.streams != 1:
        raise UsageError(
            f"the model was exported with --batch {stream.streams}, and a video is one stream; give --streams"
            f" {stream.streams}, or export it with --batch 1"
        )


def run_provenance(
    stream: SaliencyStream,
    source: Source,
    selection: Selection,
    outputs: Outputs,
    options: RunOptions,
    *,
    frames: int,
    frames_expected: int | None,
    why_incomplete: str | None = None,
) -> Provenance:
    """Returns what made the outputs of a run. For a dataset's maps it names only the options a dataset run has."""
    rate = options.reference_fps or stream.spec.reference_fps
    behaviour = {
        **asdict(options.look),
        "map_bits": outputs.map_bits,
        "map_size": outputs.map_size,
        "split_minutes": outputs.split_minutes,
        "reset_on_cut": options.reset_on_cut,
        "time_aware": options.time_aware,
        "reference_fps": rate if options.time_aware else None,
        **asdict(selection),
    }
    if source.of_dataset:
        behaviour = {name: behaviour[name] for name in ("normalise", "map_bits", "map_size")}
    return Provenance(
        salema_version=salema_version(),
        model=model_facts(stream),
        backend=stream.session.runs_on,
        options=behaviour,
        source=source_facts(source),
        frames=frames,
        frames_expected=frames_expected,
        complete=why_incomplete is None,
        why_incomplete=why_incomplete,
    )


def _write_all(outputs: list[Path], made: Provenance) -> list[str]:
    """Writes what made each output beside it; returns a sentence for each that fails."""
    notes = []
    for path in outputs:
        try:
            write_provenance(path, made)
        except OutputError as error:  # noqa: PERF203 - the outputs themselves are there
            notes.append(f"the record of what made {path} could not be written: {error}")
    return notes


class _Run:
    """One source on its way through the stages."""

    def __init__(
        self,
        stream: SaliencyStream,
        playback: Playback,
        outputs: Outputs,
        sinks: Sequence[Sink],
        options: RunOptions,
        stop: threading.Event,
    ) -> None:
        self._outputs = outputs
        self._playback, self._sinks, self._stop, self._clock = playback, sinks, stop, Clock()
        self._stream, self._options = stream, options
        self._drawing = Drawing(stream, playback, sinks, options, self._clock)
        self._count = self._cuts = 0
        self._looked_for_cuts = False
        self._error: str | None = None
        self._ended_by: str | None = None
        self._notes: list[str] = []
        self._lost: list[str] = []
        self._is_whole = self._was_stopped = False
        self._start_s = time.perf_counter()

    def take_all(self, progress: Callable[[int], None] | None) -> None:
        """Writes every result until the run ends, for whatever reason."""
        try:
            with closing(self._drawn()) as drawn:
                try:
                    for item in drawn:
                        self._write(item)
                        if progress:
                            progress(1)
                        if self._stop.is_set():
                            return
                finally:
                    self._playback.end()
            self._is_whole = self._playback.has_end_of_sound and not self._stop.is_set()
        except WindowClosedError:
            self._ended_by = "the window was closed"
            self._notes.append(f"the window was closed after {counted(self._count, 'frame')}")
        except (VideoError, OutputError) as error:
            if not self._count:
                raise
            if isinstance(error, OutputError) or not self._stop.is_set():  # a stopped source is no error
                self._error = str(error)
        finally:  # a stop after this comes while files are finished, and did not end the run
            self._was_stopped = self._stop.is_set()

    def _drawn(self) -> Generator[Drawn, None, None]:
        frames = self._clock.timed("decode", self._playback)
        if self._playback.drops:
            made = map(self._drawing.all_stages, frames)
            return side_by_side(made, [], 1, self._stop, self._stream.abort, works_in_source=True)
        return side_by_side(frames, self._drawing.stages, stop=self._stop, abort=self._stream.abort)

    def _write(self, item: Drawn) -> None:
        with self._clock.time("encode"):
            for sink in self._sinks:
                sink.write(item)
        self._count += 1
        self._cuts += bool(item.is_cut)
        self._looked_for_cuts = item.is_cut is not None

    def finish(self) -> Summary:
        """Finishes every sink, gives its file its name, and sums up."""
        if not self._count:
            raise VideoError(f"{self._playback.name}: gave no frame")
        kept = [self._finish(sink) for sink in self._sinks]
        if self._error and not any(kept):
            raise OutputError(self._error)
        seconds = time.perf_counter() - self._start_s
        losses, damage = self._playback.losses, self._playback.damage
        return Summary(
            frames=self._count,
            frames_expected=self._playback.frame_count,
            seconds=seconds,
            fps=self._count / seconds,
            stage_ms={stage: 1000 * self._clock.seconds[stage] / self._count for stage in STAGES},
            cuts=self._cuts if self._looked_for_cuts else None,
            dropped=losses.dropped,
            outages=losses.outages,
            outage_s=losses.outage_s,
            frames_lost=round(losses.outage_s * self._playback.source_rate),
            interrupted=self._was_stopped,
            error=self._error,
            cuts_reset=self._options.reset_on_cut if self._looked_for_cuts else None,
            source_start_s=self._playback.start_s,
            damaged_packets=damage.packets,
            damaged_pictures=damage.pictures,
            damaged_images=damage.images,
            first_damage_s=damage.first_s,
            damage_why=damage.why,
            lost=tuple(self._lost),
            notes=(*damage.looks, *self._notes),
            ended_by=self._error or ("interrupted" if self._was_stopped else self._ended_by),
        )

    @contextmanager
    def recorded_if_it_fails(self) -> Iterator[None]:
        """Writes what made the maps if the run fails: its files are removed then, but its maps stay."""
        try:
            yield
        except SalemaError as error:
            if self._outputs.maps is not None and self._count:
                with suppress(OutputError):  # the disk may be full
                    write_provenance(self._outputs.maps, self.provenance(str(error)))
            raise

    def provenance(self, why_incomplete: str | None) -> Provenance:
        """Returns what makes the outputs."""
        return run_provenance(
            *(self._stream, self._playback.source, self._playback.selection, self._outputs, self._options),
            frames=self._count,
            frames_expected=self._playback.frame_count,
            why_incomplete=why_incomplete,
        )

    def _finish(self, sink: Sink) -> bool:
        """Finishes and closes one sink, whatever becomes of the others; returns whether its output is kept."""
        try:
            with self._noted():
                self._notes += sink.finish(complete=self._is_whole)
            if sink.path is not None:
                remove_provenance(sink.path)  # of the file that is about to be replaced
            with self._noted():
                sink.__exit__(None, None, None)
        except OutputError as error:
            self._error = self._error or str(error)
            self._lost.append(str(sink.path))
            with suppress(OutputError):
                sink.__exit__(type(error), error, error.__traceback__)
            return False
        return True

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Notes what went wrong with an output that is kept."""
        try:
            yield
        except (VideoError, KeptError) as error:  # the sound broke off: VideoError
            self._notes += getattr(error, "notes", ())
            if self._error is None:
                self._error = str(error)
            elif str(error) != self._error:
                self._notes.append(str(error))
