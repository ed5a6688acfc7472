"""Runs many videos, one or several at a time; the others go on if one fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Literal, TypeVar

from salema.runtime.batching.stream_batch import USUAL_WAIT_MS, check_max_wait
from salema.runtime.errors import SalemaError, UsageError, VideoError
from salema.runtime.output.outputs import Outputs
from salema.runtime.output.recovery import recover_beside
from salema.runtime.run.pipeline import check_model, process_video
from salema.runtime.run.resuming import Again, check_resume, is_done
from salema.runtime.run.stages import RunOptions
from salema.runtime.run.summary import Outcome, Summary
from salema.runtime.sources.playback import Playback
from salema.runtime.sources.selection import Selection
from salema.runtime.sources.source import Source
from salema.runtime.stream import SaliencyStream
from salema.runtime.video.video_reader import LIVE_SCHEMES

_PACED = {"camera", "url", "pipeline"}  # frames may come in real time
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def usual_jobs(sources: Sequence[Source], *, live: bool = False) -> int:
    """Returns the default number of jobs: cameras and streams all at once, files one after the other.

    `live` says that URLs of files are live too, as those of some protocols always are.
    """
    paced = sum(_is_paced(source, live=live) for source in sources)
    return paced + (paced < len(sources))


def _is_paced(source: Source, *, live: bool) -> bool:
    live = live or source.shown.partition("://")[0].lower() in LIVE_SCHEMES
    return source.kind in _PACED and (live or not source.is_web_file)


def check_streams(
    streams: int | None, max_wait_ms: float | None, *, jobs: int | None, show: bool, ray: str | None
) -> None:
    """Refuses `--streams` with what doesn't go with it.

    Raises:
        UsageError: it is given with `--jobs` or `--ray`, or above 1 with `--show`; or `--max-wait-ms` is given alone,
            or is no wait.
    """
    if streams is None:
        if max_wait_ms is not None:
            raise UsageError(f"--max-wait-ms {max_wait_ms:g}: for --streams only; add that, or leave it out")
        return
    if jobs is not None:
        raise UsageError(
            f"--streams {streams} --jobs {jobs}: both say how many videos run at a time, --streams on one model and"
            " --jobs on one each; give one of them"
        )
    if ray is not None:
        raise UsageError(f"--streams {streams} --ray {ray}: a worker runs one video at a time; leave one of them out")
    if show and streams > 1:
        raise UsageError(
            f"--show --streams {streams}: one window at a time, and {streams} sources would run at once; leave one out"
        )
    check_max_wait(USUAL_WAIT_MS if max_wait_ms is None else max_wait_ms)


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
    resume: bool = False,
) -> Iterator[tuple[Source, Outputs, Outcome]]:
    """Runs sources; yields each as it ends.

    Each job opens the model once. `stop`, once set, ends the run. `begun` is called with each playback once it is open,
    `progress` with the number of frames done since the last call, `notify` with sentences for the user. With `resume`
    files and folders are skipped whose outputs are there, and were made as they would be now.

    Raises:
        SalemaError: the model can't be opened.
        UsageError: several windows would be shown at a time, the model can run no source this way, or see
            `check_resume`.
    """
    if jobs > 1 and any(outputs.show for _, outputs in planned):
        raise UsageError(f"--show: one window at a time, and {jobs} sources would run at once; give --jobs 1")

    for _, outputs in planned if resume else ():
        check_resume(outputs)
    again = Again("outputs", notify)

    def work(item: tuple[Source, Outputs], stream: SaliencyStream) -> Summary | Literal["skipped"] | None:
        source, outputs = item
        if resume and not stop.is_set() and is_done(stream, source, selection, outputs, options, again):
            return "skipped"
        return run_source(stream, *item, selection, options, stop=stop, begun=begun, progress=progress, notify=notify)

    for (source, outputs), result in run_jobs(planned, lambda: _fitting(open_stream, options), work, jobs):
        yield source, outputs, result


def _fitting(open_stream: Callable[[], SaliencyStream], options: RunOptions) -> SaliencyStream:
    with ExitStack() as unless_it_fits:
        stream = unless_it_fits.enter_context(open_stream())
        check_model(stream, options)
        unless_it_fits.pop_all()
    return stream


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
    """Runs one source, after recovering what killed runs left of its outputs; returns None if stopped before."""
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
    """Yields each item as it is done, with the result of `work` or its error.

    Each job opens the model once. With one job `work` runs in the caller's thread.

    Raises:
        SalemaError: the model can't be opened, as often as there are jobs.
    """
    opened = list[SaliencyStream]()
    try:
        for _ in range(max(1, min(jobs, len(items)))):  # before any item is taken, which a failure would lose
            opened.append(open_stream())
        if jobs == 1:
            for item in items:
                yield item, _attempt(work, item, opened[0])
        else:
            yield from _side_by_side(items, opened, work)
    finally:
        for stream in opened:
            stream.close()


def _attempt(work: Callable[..., _Result], *arguments: object) -> _Result | SalemaError | OSError:
    try:
        return work(*arguments)
    except (SalemaError, OSError) as error:
        return error


def _side_by_side(
    items: Sequence[_Item], opened: Sequence[SaliencyStream], work: Callable[[_Item, SaliencyStream], _Result]
) -> Iterator[tuple[_Item, _Result | SalemaError | OSError]]:
    spare = SimpleQueue[SaliencyStream]()
    for stream in opened:
        spare.put(stream)

    def run(item: _Item) -> _Result:
        stream = spare.get()
        try:
            return work(item, stream)
        finally:
            spare.put(stream)

    with ThreadPoolExecutor(len(opened), "video") as pool:
        futures = {pool.submit(_attempt, run, item): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:  # if the caller stops early, only running items are waited for
            for future in futures:
                future.cancel()
