"""Scores of a whole dataset: frames by several workers, results the same whatever their number."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from salema.benchmarks.maps.fixations import OtherFixations, read_places, seeded
from salema.benchmarks.maps.map_files import read_map
from salema.benchmarks.metrics.protocols import METRICS, score_frame
from salema.benchmarks.scores.failures import Failures
from salema.benchmarks.scores.results import DatasetScores, VideoScores
from salema.runtime.errors import MapError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from salema.benchmarks.maps.fixations import Places
    from salema.benchmarks.maps.ground_truth import VideoTruth
    from salema.benchmarks.maps.predictions import MapSource, Matched
    from salema.benchmarks.metrics.protocols import Protocol

    Scores = NDArray[np.float64]

_AHEAD = 4  # frames per worker that are read or inferred before they are scored


def score_dataset(
    sources: Sequence[MapSource],
    truth: Mapping[str, VideoTruth],
    protocol: Protocol,
    *,
    seed: int = 0,
    jobs: int = 1,
    everywhere: Mapping[str, VideoTruth] | None = None,
    strict: bool = True,
    progress: Callable[[int], None] = lambda _: None,
) -> list[DatasetScores]:
    """Scores one model's maps, or several models' on the frames that all of them have.

    Where shuffled AUC takes all other videos, they are those that are scored; where it draws frames of the whole set,
    those of `everywhere`; where it draws other videos, those of `truth`, and of `everywhere` if these are too few.

    Args:
        sources: whose maps.
        truth: the ground truth, by `video_key`.
        protocol: how.
        seed: of all that is sampled; models get the same draws.
        jobs: frames at a time.
        everywhere: all ground truth there is, by `video_key`, scored or not; None for `truth`.
        strict: whether the first file that can't be read ends it; else its frame is left out, for every model.
        progress: takes the frames that were read or scored since it was called last.

    Raises:
        MapError: a map is unreadable or not what it is taken for, with `strict` or if nothing else can be scored; or
            the models have no frame in common.
        VideoError: a frame can't be read, with `strict`.
        ModelError: a model gave NaN or infinity.
    """
    keys = scored_videos(sources, truth)
    if not keys:
        raise MapError(
            f"{sources[-1].label}: has no frame in common with {sources[0].label}; compare maps of the same frames"
        )
    everywhere, failures = everywhere or truth, Failures(strict=strict)

    def read(key: str, index: int) -> Places | None:
        return failures.attempt(key, index, lambda: read_places(everywhere[key].frames[index].fixation))

    with ThreadPoolExecutor(jobs, "score") if jobs > 1 else _AtOnce() as pool:
        frames = _Frames(pool, jobs * _AHEAD, progress)
        reading = _in_turn(
            keys, lambda key: [frames.submit(read, key, index) for index in range(len(truth[key].frames))]
        )
        places = {key: [done.result() for done in futures] for key, futures in reading}
        drawn_from = places if protocol.other_frames is None else _with_unread(places, everywhere or truth)
        others = OtherFixations(drawn_from, protocol, seed, first=truth, read=read)
        score = partial(_score, truth=truth, places=places, others=others, protocol=protocol, seed=seed)
        found = _score_together(sources, keys, truth, partial(_attempt, failures, score), frames, failures)
    frames.check()
    failed = failures.named(everywhere)
    if not found[0].videos:
        raise MapError(f"{next(iter(failed.values()))}; there is nothing else to score")
    return [replace(scores, few_others=others.fewest(keys), failed=failed) for scores in found]


def draws_beyond(protocol: Protocol, truth: Mapping[str, VideoTruth]) -> bool:
    """Whether s-AUC's negatives are drawn of more videos than these: to list all of DHF1K's files takes seconds."""
    if protocol.other_frames is None:
        return False
    known = sum(any(frame.fixation for frame in video.frames) for video in truth.values())
    return not protocol.per_video or known <= protocol.other_frames


def _attempt(
    failures: Failures, score: Callable[..., Scores], key: str, index: int, gets: list[Callable[[], Any]]
) -> Scores | None:
    return None if failures.has(key, index) else failures.attempt(key, index, partial(score, key, index, gets))


def _with_unread(
    places: Mapping[str, Sequence[Places | None]], everywhere: Mapping[str, VideoTruth]
) -> dict[str, Sequence[Places | Path | None]]:
    return {
        key: places[key] if key in places else [frame.fixation for frame in video.frames]
        for key, video in everywhere.items()
    }


class _AtOnce(Executor):
    """One job at a time: done when it is submitted, as handing it to another thread would take a tenth longer."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments, **named))
        except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
            future.set_exception(error)
        return future


class _Frames:
    """Work on frames in a pool, never far ahead of what is done; the first failure ends it."""

    def __init__(self, pool: Executor, ahead: int, progress: Callable[[int], None]) -> None:
        self._pool, self._progress = pool, progress
        self._room, self._failure = threading.Semaphore(ahead), list[BaseException]()

    def submit(self, work: Callable[..., Any], *arguments: object) -> Future[Any]:
        self._room.acquire()
        if self._failure:
            self._room.release()
            raise self._failure[0]
        future = self._pool.submit(work, *arguments)
        future.add_done_callback(self._done)
        return future

    def _done(self, future: Future[Any]) -> None:
        try:
            error = future.exception()
            if error is not None:
                self._failure.append(error)
            self._progress(1)
        except BaseException as raised:  # noqa: BLE001 - the pool would log it and go on
            self._failure.append(raised)
        finally:
            self._room.release()

    def check(self) -> None:
        """Raises the first failure, once all is done."""
        if self._failure:
            raise self._failure[0]


def _in_turn(keys: Iterable[str], submit: Callable[[str], list[Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Yields what was submitted for each video once the next one's is too: a Future is kept no longer than that."""
    waiting: tuple[str, list[Any]] | None = None
    for key in keys:
        following = key, submit(key)
        if waiting is not None:
            yield waiting
        waiting = following
    if waiting is not None:
        yield waiting


def scored_videos(sources: Sequence[MapSource], truth: Mapping[str, VideoTruth]) -> list[str]:
    """Returns the videos, by `video_key`, of which there is a frame that all models have."""
    return [key for key in truth if all(key in source.videos for source in sources) and _shared(sources, key)]


def whole_videos(sources: Sequence[MapSource], truth: Mapping[str, VideoTruth]) -> list[str]:
    """Returns the videos, by `video_key`, of which all models have a map of every frame."""
    return [key for key in scored_videos(sources, truth) if len(_shared(sources, key)) == len(truth[key].frames)]


def _shared(sources: Sequence[MapSource], key: str) -> set[int]:
    """Returns the indices of the frames of one video that all models have."""
    return set.intersection(*(set(source.videos[key].files) for source in sources))


def _side_by_side(sources: Sequence[MapSource], key: str) -> Iterator[tuple[int, list[Callable[[], Any]]]]:
    """Yields, for one video, each frame that all models have, and how to get every model's map of it."""
    shared = _shared(sources, key)
    walks = [((index, get) for index, get in source.maps(key) if index in shared) for source in sources]
    for steps in zip(*walks, strict=True):
        indices = {index for index, _ in steps}
        if len(indices) > 1:  # models of one dataset, and maps on disk, come in one order, but not these beside those
            raise ValueError(f"{key}: the models' frames come in different orders")
        yield indices.pop(), [get for _, get in steps]


def _score_together(
    sources: Sequence[MapSource],
    keys: Sequence[str],
    truth: Mapping[str, VideoTruth],
    work: Callable[[str, int, list[Callable[[], Any]]], Scores | None],
    frames: _Frames,
    failures: Failures,
) -> list[DatasetScores]:
    def submit(key: str) -> list[tuple[int, Future[Scores | None]]]:
        walk, left = _side_by_side(sources, key), _shared(sources, key)
        found: list[tuple[int, Future[Scores | None]]] = []
        # Where a model's frame can't be read, it and those after it are left out, as in salema-run.
        while left and (step := failures.attempt(key, min(left), partial(next, walk, None))) is not None:
            found.append((step[0], frames.submit(work, key, *step)))
            left.discard(step[0])
        return found

    videos: list[dict[str, VideoScores]] = [{} for _ in sources]
    for key, futures in _in_turn(keys, submit):
        scored = [(index, scores) for index, future in futures if (scores := future.result()) is not None]
        if not scored:
            continue
        rows = np.array([scores for _, scores in scored]).reshape(-1, len(sources), len(METRICS))
        for place, source in enumerate(sources):
            found = _gather(truth[key], source.videos[key], [index for index, _ in scored], _shared(sources, key))
            videos[place][key] = replace(found, scores=rows[:, place])
    return [_of_dataset(source, found, truth, keys) for source, found in zip(sources, videos, strict=True)]


def _gather(truth: VideoTruth, matched: Matched, scored: Sequence[int], shared: set[int]) -> VideoScores:
    """Returns a video's frames, sorted by what became of them, without their scores."""

    def names(indices: Iterable[int]) -> tuple[str, ...]:
        return tuple(truth.frames[index].name for index in indices)

    unshared = names(index for index in matched.files if index not in shared)
    failed = names(sorted(shared - set(scored)))
    return VideoScores(truth.name, names(scored), np.empty(0), matched.missing, matched.extra, unshared, failed)


def _of_dataset(
    source: MapSource, videos: dict[str, VideoScores], truth: Mapping[str, VideoTruth], keys: Sequence[str]
) -> DatasetScores:
    without = tuple(video.name for key, video in truth.items() if key not in source.videos)
    unshared = tuple(video.name for key, video in truth.items() if key in source.videos and key not in keys)
    return DatasetScores(source.label, videos, source.without_truth, without, unshared, made_by=source.made_by)


def _score(
    key: str,
    index: int,
    gets: list[Callable[[], NDArray[Any]]],
    *,
    truth: Mapping[str, VideoTruth],
    places: Mapping[str, Sequence[Places | None]],
    others: OtherFixations,
    protocol: Protocol,
    seed: int,
) -> Scores:
    """Scores every model's map of one frame, `(models, metrics)`; the ground truth is read once."""
    frame = truth[key].frames[index]
    found = places[key][index]
    fixated = found.to_map() if found else None
    density = read_map(frame.density) if frame.density else None
    if density is not None and fixated is not None and density.shape != fixated.shape:
        raise MapError(
            f"{frame.fixation}: is {_size(fixated)}, and {frame.density} {_size(density)}; the two must be of one size"
        )
    elsewhere = others.at(key, index, fixated.shape) if fixated is not None else None
    return np.array(
        [score_frame(get(), density, fixated, elsewhere, protocol, seeded(seed, "scores", key, index)) for get in gets]
    )


def frame_count(sources: Sequence[MapSource], truth: Mapping[str, VideoTruth]) -> int:
    """Returns how many frames `score_dataset` will read and score."""
    keys = scored_videos(sources, truth)
    read = sum(len(truth[key].frames) for key in keys)
    return read + sum(len(_shared(sources, key)) for key in keys)


def _size(values: NDArray[Any]) -> str:
    return f"{values.shape[1]}x{values.shape[0]}"
