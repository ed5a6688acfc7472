"""Frames scored on the machines of a Ray cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2

from salema.benchmarks.scores.workers import Pool
from salema.runtime.errors import BackendError, UsageError, reason
from salema.runtime.files.many_requests import at_a_time
from salema.runtime.fleet.cluster import connected

_FRAMES_A_JOB = 64  # a second of work: to give a task to another machine takes milliseconds
_MOST_RETRIES = 2  # of a task whose worker or node was lost


def seen_by_all(pred: Path | None, compare: Path | None, truth: Path) -> tuple[Path, Path | None, Path]:
    """Returns the folders by names that mean the same in every process.

    Raises:
        UsageError: there are no maps on disk.
    """
    if pred is None:
        raise UsageError("--ray scores maps on disk: write them with salema-run --dataset --ray, and give --pred")
    return pred.absolute(), compare and compare.absolute(), truth.absolute()


def cluster_workers(address: str, jobs: int | None, paths: Sequence[Path], opened: ExitStack) -> dict[str, Any]:
    """Connects to a cluster, and has each node look at the paths; returns `jobs` and `pool` for `score_dataset`.

    Raises:
        SalemaError: see `connected`; or a node can't see a path, or has another version, or there is no core.
    """
    cluster = opened.enter_context(connected(address))
    nodes = [node for node in cluster.nodes() if node.cores >= 1]
    if not nodes:
        raise BackendError("--ray: no node of the cluster has a CPU")
    cluster.check(nodes, paths)
    cores = sum(int(node.cores) for node in nodes)
    # All that is submitted may run at once, so --jobs is kept by submitting no more.
    pool = Pool(partial(_tasks, cluster.ray), _FRAMES_A_JOB, is_apart=True, ahead=1, together=at_a_time(*paths))
    return {"jobs": max(2, jobs or cores), "pool": pool}  # 1 would be this process


@contextmanager
def _tasks(ray: Any, work: Callable[..., Any], _jobs: int) -> Iterator[Callable[..., Future[Any]]]:
    task, sent = ray.remote(num_cpus=1, max_retries=_MOST_RETRIES)(_do), ray.put(work)
    yield partial(_start, ray, task, sent)


def _start(ray: Any, task: Any, sent: Any, frames: Sequence[Any]) -> Future[Any]:
    future: Future[Any] = Future()
    done = task.remote([sent], frames).future()
    done.add_done_callback(partial(_settle, ray, future, frames, partial(_start, ray, task, sent)))
    return future


def _settle(
    ray: Any, future: Future[Any], frames: Sequence[Any], start: Callable[..., Future[Any]], done: Future[Any]
) -> None:
    """Passes on what a task gave. Frames whose worker died each time are tried one by one, and the one is left out."""
    error = done.exception()
    if error is None:
        future.set_result(done.result())
    elif isinstance(error, ray.exceptions.RayTaskError):
        future.set_exception(error.cause)
    elif not isinstance(error, _lost_with_a_worker(ray)):
        future.set_exception(_no_answer(error))
    elif len(frames) > 1:
        try:
            _Gathered(future, [start([frame]) for frame in frames])
        except Exception as failure:  # noqa: BLE001 - the future would be waited for in vain
            future.set_exception(_no_answer(failure))
    else:
        key, index, *_ = frames[0]
        why = f"{key}: frame {index + 1} was given up: its worker died {_MOST_RETRIES + 1} times"
        future.set_result(([None], {(key, index): why}))


def _lost_with_a_worker(ray: Any) -> tuple[type[Exception], ...]:
    """Returns the errors that tell that a worker or its node was lost."""
    known = ray.exceptions
    of_node = known.NodeDiedError, known.LocalRayletDiedError, known.ObjectLostError
    return known.WorkerCrashedError, known.OutOfMemoryError, *of_node


def _no_answer(error: BaseException) -> BackendError:
    return BackendError(f"--ray: the cluster gives no more answers ({reason(error)}); look at it with: ray status")


class _Gathered:
    """Gives a future the results of several others once all are there."""

    def __init__(self, future: Future[Any], parts: Sequence[Future[Any]]) -> None:
        self._future, self._parts, self._left, self._lock = future, parts, len(parts), threading.Lock()
        for part in parts:
            part.add_done_callback(self._count)

    def _count(self, _: Future[Any]) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
        error = next((error for part in self._parts if (error := part.exception()) is not None), None)
        if error is not None:
            self._future.set_exception(error)
            return
        results = [part.result() for part in self._parts]
        failed = {frame: why for _, found in results for frame, why in found.items()}
        self._future.set_result(([one for found, _ in results for one in found], failed))


@lru_cache(maxsize=2)
def _work_of(sent: Any) -> Callable[..., Any]:
    """Returns the work, which each worker process takes from its node once: it holds a dataset's fixations."""
    import ray  # noqa: PLC0415 - here it is installed

    cv2.setNumThreads(1)  # each core has a worker
    work: Callable[..., Any] = ray.get(sent)
    return work


def _do(sent: list[Any], frames: Sequence[Any]) -> Any:
    return _work_of(sent[0])(frames)
