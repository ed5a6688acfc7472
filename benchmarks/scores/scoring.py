"""Scores a whole dataset. Several workers score frames; their number does not change the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from salema.benchmarks.maps.fixations import OtherFixations, Places, read_places, seeded
from salema.benchmarks.maps.ground_truth import VideoTruth
from salema.benchmarks.maps.map_files import read_map
from salema.benchmarks.maps.predictions import MapSource, Matched, PredictedMaps
from salema.benchmarks.metrics.protocols import METRICS, Protocol, score_frame
from salema.benchmarks.scores.failures import Failures
from salema.benchmarks.scores.results import DatasetScores, VideoScores
from salema.benchmarks.scores.workers import PROCESSES, THREADS, Pool, Workers, can_fork, working
from salema.runtime.errors import MapError
from salema.runtime.files.many_requests import each

if TYPE_CHECKING:
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

_Frame = TypeVar("_Frame")

_FORKED_FROM = 64  # frames to read and score; for fewer, starting processes costs more than they save
_READ_TOGETHER_FROM = 512  # frames; reading their fixations takes a twentieth of the time of scoring them


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
    pool: Pool | None = None,
) -> list[DatasetScores]:
    """Scores one model's maps, or several models' on the frames that all of them have.

    Args:
        sources: whose maps.
        truth: the ground truth, by `video_key`.
        protocol: how.
        seed: of the random draws, which are the same for each model.
        jobs: frames at a time.
        everywhere: the ground truth that shuffled AUC may draw from, by `video_key`; None for `truth`.
        strict: whether the first file that can't be read is an error; if not, its frame is left out for every model.
        progress: called with the number of frames read or scored since the last call.
        pool: the workers, if `jobs` is above 1; None for processes where they are safe and pay, else threads.

    Raises:
        MapError: a map is no map, with `strict` or if nothing else can be scored; or no frame is common to all models.
        VideoError: a frame can't be read, with `strict`.
        ModelError: a model gave NaN or infinity.
    """
    keys = _keys_in_common(sources, truth)
    everywhere, failures = everywhere or truth, Failures(strict=strict)
    workers = partial(_workers, failures=failures, progress=progress, pool=pool or _usual_pool(sources, truth, jobs))
    read = partial(_read, everywhere=everywhere, failures=failures)
    places = _read_all(keys, truth, partial(workers, read), jobs, failures)
    others = OtherFixations(_with_unread(places, everywhere, protocol), protocol, seed, first=truth, read=read)
    score = partial(_score, truth=truth, places=places, others=others, protocol=protocol, seed=seed)
    with workers(partial(_attempt, failures, score), jobs) as scorers:
        models = _score_together(sources, keys, truth, scorers, failures)
    return _finished(models, others.fewest(keys), failures.named(everywhere))


def _finished(models: Sequence[DatasetScores], few_others: int | None, failed: dict[str, str]) -> list[DatasetScores]:
    if not models[0].videos:
        raise MapError(f"{next(iter(failed.values()))}; there is nothing else to score")
    return [replace(model, few_others=few_others, failed=failed) for model in models]


def _keys_in_common(sources: Sequence[MapSource], truth: Mapping[str, VideoTruth]) -> list[str]:
    keys = scored_videos(sources, truth)
    if not keys:
        raise MapError(
            f"{sources[-1].label}: has no frame in common with {sources[0].label}; compare maps of the same frames"
        )
    return keys


def draws_beyond(protocol: Protocol, truth: Mapping[str, VideoTruth]) -> bool:
    """Whether s-AUC's negatives are drawn of more videos than these: to list all of DHF1K's files takes seconds."""
    if protocol.other_frames is None:
        return False
    known = sum(any(frame.fixation for frame in video.frames) for video in truth.values())
    return not protocol.per_video or known <= protocol.other_frames


def _usual_pool(sources: Sequence[MapSource], truth: Mapping[str, VideoTruth], jobs: int) -> Pool:
    if jobs == 1 or not all(isinstance(source, PredictedMaps) for source in sources):  # a model runs here
        return THREADS
    return PROCESSES if frame_count(sources, truth) >= _FORKED_FROM and can_fork() else THREADS


def _workers(
    work: Callable[..., Any], jobs: int, failures: Failures, progress: Callable[[int], None], pool: Pool
) -> AbstractContextManager[Workers]:
    all_of = partial(_all_of, work, failures, is_apart=pool.is_apart, together=pool.together)
    return working(all_of, jobs, progress, pool)


def _all_of(
    work: Callable[..., Any], failures: Failures, frames: Iterable[Iterable[Any]], *, is_apart: bool, together: int
) -> tuple[list[Any], dict[tuple[str, int], str]]:
    """Works on each of these frames; returns the results, and the failures if this is a worker process."""
    done = list(each(lambda frame: work(*frame), frames, together))
    return done, failures.handed_over() if is_apart else {}


def _results(done: Future[Any], failures: Failures) -> list[Any]:
    results, failed = done.result()
    failures.add(failed)
    return list(results)


def _read(key: str, index: int, *, everywhere: Mapping[str, VideoTruth], failures: Failures) -> Places | None:
    return failures.attempt(key, index, lambda: read_places(everywhere[key].frames[index].fixation))


def _read_all(
    keys: Sequence[str],
    truth: Mapping[str, VideoTruth],
    workers: Callable[[int], AbstractContextManager[Workers]],
    jobs: int,
    failures: Failures,
) -> dict[str, list[Places | None]]:
    are_many = sum(len(truth[key].frames) for key in keys) >= _READ_TOGETHER_FROM
    with workers(jobs if are_many else 1) as readers:

        def submit(key: str) -> list[Future[Any]]:
            frames = [(key, index) for index in range(len(truth[key].frames))]
            return [readers.submit(len(some), some) for some in _in_parts(frames, readers.at_a_time)]

        return {
            key: [places for done in futures for places in _results(done, failures)]
            for key, futures in _in_turn(keys, submit)
        }


def _in_parts(frames: Iterable[_Frame], at_a_time: int) -> Iterator[list[_Frame]]:
    walk = iter(frames)
    while some := list(islice(walk, at_a_time)):
        yield some


def _attempt(
    failures: Failures, score: Callable[..., Scores], key: str, index: int, gets: list[Callable[[], Any]]
) -> Scores | None:
    return failures.attempt(key, index, partial(score, key, index, gets))


def _with_unread(
    places: Mapping[str, Sequence[Places | None]], everywhere: Mapping[str, VideoTruth], protocol: Protocol
) -> Mapping[str, Sequence[Places | Path | None]]:
    if protocol.other_frames is None:
        return places
    return {
        key: places[key] if key in places else [frame.fixation for frame in video.frames]
        for key, video in everywhere.items()
    }


def _in_turn(keys: Iterable[str], submit: Callable[[str], list[Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Yields each video's futures once the next video's are submitted, so that few are kept."""
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
        if len(indices) > 1:  # models agree, and so do maps on disk, but a model and maps on disk may not
            raise ValueError(f"{key}: the models' frames come in different orders")
        yield indices.pop(), [get for _, get in steps]


def _readable(
    sources: Sequence[MapSource], key: str, failures: Failures
) -> Iterator[tuple[str, int, list[Callable[[], Any]]]]:
    """Yields a video's frames to score. After a frame that a model can't read, the rest is left out, as in a run."""
    walk, left = _side_by_side(sources, key), _shared(sources, key)
    while left and (step := failures.attempt(key, min(left), partial(next, walk, None))) is not None:
        index, gets = step
        left.discard(index)
        if not failures.has(key, index):  # its fixations were read before
            yield key, index, gets


def _score_together(
    sources: Sequence[MapSource],
    keys: Sequence[str],
    truth: Mapping[str, VideoTruth],
    scorers: Workers,
    failures: Failures,
) -> list[DatasetScores]:
    def submit(key: str) -> list[tuple[list[int], Future[Any]]]:
        parts = _in_parts(_readable(sources, key, failures), scorers.at_a_time)
        return [([index for _, index, _ in some], scorers.submit(len(some), some)) for some in parts]

    videos: list[dict[str, VideoScores]] = [{} for _ in sources]
    for key, futures in _in_turn(keys, submit):
        pairs = [pair for indices, done in futures for pair in zip(indices, _results(done, failures), strict=True)]
        scored = [(index, scores) for index, scores in pairs if scores is not None]
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
        (one, other) = (f"{known.shape[1]}x{known.shape[0]}" for known in (fixated, density))
        raise MapError(f"{frame.fixation}: is {one}, and {frame.density} {other}; the two must be of one size")
    elsewhere = others.at(key, index, fixated.shape) if fixated is not None else None
    return np.array(
        [score_frame(get(), density, fixated, elsewhere, protocol, seeded(seed, "scores", key, index)) for get in gets]
    )


def frame_count(sources: Sequence[MapSource], truth: Mapping[str, VideoTruth]) -> int:
    """Returns how many frames `score_dataset` will read and score."""
    keys = scored_videos(sources, truth)
    return sum(len(truth[key].frames) + len(_shared(sources, key)) for key in keys)
