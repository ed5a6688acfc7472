"""Several sources, each with its own outputs: one failure is not the end of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from salema.runtime.errors import UsageError, VideoError
from salema.runtime.output.recovery import recover_beside
from salema.runtime.run.jobs import run_jobs
from salema.runtime.run.pipeline import process_video
from salema.runtime.sources.playback import Playback

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence

    from salema.runtime.errors import SalemaError
    from salema.runtime.output.outputs import Targets
    from salema.runtime.run.pipeline import Summary
    from salema.runtime.run.stages import RunOptions
    from salema.runtime.sources.selection import Selection
    from salema.runtime.sources.source import Source
    from salema.runtime.stream import SaliencyStream

_AT_THEIR_OWN_PACE = {"camera", "url", "pipeline"}


def usual_jobs(sources: Sequence[Source]) -> int:
    """How many sources to run at a time if nobody says: cameras and streams all at once, files one after the other."""
    live = sum(source.kind in _AT_THEIR_OWN_PACE for source in sources)
    return live + (live < len(sources))


def run_sources(
    planned: Sequence[tuple[Source, Targets]],
    open_stream: Callable[[], SaliencyStream],
    selection: Selection,
    options: RunOptions,
    *,
    jobs: int,
    stop: threading.Event,
    begun: Callable[[Playback], None],
    progress: Callable[[int], None],
    notify: Callable[[str], None],
) -> Iterator[tuple[Source, Targets, Summary | SalemaError | OSError | None]]:
    """Runs sources; yields each with its summary, or what went wrong, or None if a stop came before it, as they end.

    Args:
        planned: what is run, and what is written for each.
        open_stream: opens the model.
        selection: which frames of each.
        options: how maps are drawn, and what empties the memory.
        jobs: how many at a time.
        stop: ends it.
        begun: takes each source once it is open.
        progress: takes the number of frames that were done since it was called last.
        notify: takes sentences for whoever watches.

    Raises:
        SalemaError: the model can't be opened.
        UsageError: windows can't be shown for several at a time.
    """
    if jobs > 1 and any(targets.show for _, targets in planned):
        raise UsageError(f"--show: one window at a time, and {jobs} sources would run at once; give --jobs 1")

    def work(item: tuple[Source, Targets], stream: SaliencyStream) -> Summary | None:
        source, targets = item
        if stop.is_set():
            return None
        try:
            with Playback(source, selection, stop, notify) as playback:
                begun(playback)
                for note in recover_beside(targets.files):
                    notify(note)
                return process_video(stream, playback, targets, options, progress=progress, stop=stop)
        except VideoError:
            if stop.is_set():  # before the first frame
                return None
            raise

    for (source, targets), result in run_jobs(planned, open_stream, work, jobs):
        yield source, targets, result
