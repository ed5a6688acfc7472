"""Many videos, one or several at a time: one failure is not the end of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, TypeVar

from salema.runtime.errors import SalemaError, UsageError, VideoError
from salema.runtime.output.recovery import recover_beside
from salema.runtime.run.pipeline import process_video
from salema.runtime.run.stages import RunOptions
from salema.runtime.run.summary import Summary
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.selection import Selection

if TYPE_CHECKING:
    from salema.runtime.output.outputs import Outputs
    from salema.runtime.sources.source import Source
    from salema.runtime.stream import SaliencyStream

_AT_THEIR_OWN_PACE = {"camera", "url", "pipeline"}
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def usual_jobs(sources: Sequence[Source]) -> int:
    """How many sources to run at a time if nobody says: cameras and streams all at once, files one after the other."""
    live = sum(source.kind in _AT_THEIR_OWN_PACE for source in sources)
    return live + (live < len(sources))


def run_sources(
    planned: Sequence[tuple[Source, Outputs]],
    open_stream: Callable[[], SaliencyStream],
    selection: Selection,
    options: RunOptions,
    *,
    jobs: int,
    stop: threading.Event,
    begun: Callable[[Playback], None],
    progress: Callable[[int], None],
    notify: Callable[[str], None],
) -> Iterator[tuple[Source, Outputs, Summary | SalemaError | OSError | None]]:
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
    if jobs > 1 and any(outputs.show for _, outputs in planned):
        raise UsageError(f"--show: one window at a time, and {jobs} sources would run at once; give --jobs 1")

    def work(item: tuple[Source, Outputs], stream: SaliencyStream) -> Summary | None:
        return run_source(stream, *item, selection, options, stop=stop, begun=begun, progress=progress, notify=notify)

    for (source, outputs), result in run_jobs(planned, open_stream, work, jobs):
        yield source, outputs, result


def run_source(
    stream: SaliencyStream,
    source: Source,
    outputs: Outputs,
    selection: Selection,
    options: RunOptions,
    *,
    stop: threading.Event,
    progress: Callable[[int], None],
    notify: Callable[[str], None],
    begun: Callable[[Playback], None] = lambda _: None,
) -> Summary | None:
    """Runs one source, once what killed runs have left of its outputs is recovered; returns None if a stop came first.

    Raises:
        SalemaError: see `Playback` and `process_video`.
    """
    if stop.is_set():
        return None
    try:
        with Playback(source, selection, stop, notify) as playback:
            begun(playback)
            for note in recover_beside(outputs.files):
                notify(note)
            return process_video(stream, playback, outputs, options, progress=progress, stop=stop)
    except VideoError:
        if stop.is_set():  # before the first frame
            return None
        raise


def run_jobs(
    items: Sequence[_Item],
    open_stream: Callable[[], SaliencyStream],
    work: Callable[[_Item, SaliencyStream], _Result],
    jobs: int = 1,
) -> Iterator[tuple[_Item, _Result | SalemaError | OSError]]:
    """Yields each item with what `work` made of it, or what went wrong, as they are done.

    Args:
        items: what to work on.
        open_stream: opens the model; each job has one of its own.
        work: takes an item and a stream. With one job it runs in the caller's thread.
        jobs: how many at a time.

    Raises:
        SalemaError: the model can't be opened: one error, not one an item.
    """
    opened = [open_stream()]
    try:
        if jobs == 1:
            for item in items:
                yield item, _attempt(work, item, opened[0])
        else:
            yield from _side_by_side(items, open_stream, opened, work, jobs)
    finally:
        for stream in opened:
            stream.close()


def _attempt(work: Callable[..., _Result], *arguments: object) -> _Result | SalemaError | OSError:
    try:
        return work(*arguments)
    except (SalemaError, OSError) as error:
        return error


def _side_by_side(
    items: Sequence[_Item],
    open_stream: Callable[[], SaliencyStream],
    opened: list[SaliencyStream],
    work: Callable[[_Item, SaliencyStream], _Result],
    jobs: int,
) -> Iterator[tuple[_Item, _Result | SalemaError | OSError]]:
    own, spare, lock = threading.local(), list(opened), threading.Lock()

    def run(item: _Item) -> _Result:
        if not hasattr(own, "stream"):
            with lock:
                if spare:
                    own.stream = spare.pop()
                else:
                    own.stream = open_stream()
                    opened.append(own.stream)
        return work(item, own.stream)

    with ThreadPoolExecutor(jobs, "video") as pool:
        futures = {pool.submit(_attempt, run, item): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:  # who takes no more of them waits for what is under way, not for all
            for future in futures:
                future.cancel()
