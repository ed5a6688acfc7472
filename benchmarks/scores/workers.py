"""Workers for frames: processes where forking is safe and saves time, else threads.

Threads share Python's lock, and hardly use a second core. A forked process starts at once, and has all that its parent
has read.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from salema.runtime.cpu import usable_cpus
from salema.runtime.files.many_requests import at_a_time
from salema.runtime.files.remote_path import is_remote

_FRAMES_A_JOB = 8  # for a process: handing over a job takes a tenth of a millisecond
_FETCHED_A_JOB = 64
_AHEAD = 4  # jobs per worker: some wait
_DIE_WITH_PARENT = 1  # of prctl(2)


class Workers:
    """Submits work to workers, a limited number of jobs ahead; the first failure ends it.

    Attributes:
        at_a_time: how many frames to submit together.
    """

    def __init__(
        self, start: Callable[..., Future[Any]], ahead: int, progress: Callable[[int], None], *, at_a_time: int
    ) -> None:
        self._start, self._progress, self.at_a_time = start, progress, at_a_time
        self._room, self._failure = threading.Semaphore(ahead), list[BaseException]()

    def submit(self, frames: int, *arguments: object) -> Future[Any]:
        """Submits one job: its number of frames, and the arguments of the work."""
        self._room.acquire()
        if self._failure:
            self._room.release()
            raise self._failure[0]
        future = self._start(*arguments)
        future.add_done_callback(partial(self._done, frames))
        return future

    def _done(self, frames: int, future: Future[Any]) -> None:
        try:
            error = future.exception()
            if error is not None:
                self._failure.append(error)
            self._progress(frames)
        except BaseException as raised:  # noqa: BLE001 - the pool would log it and go on
            self._failure.append(raised)
        finally:
            self._room.release()

    def check(self) -> None:
        """Raises the first failure, once all is done."""
        if self._failure:
            raise self._failure[0]


@dataclass(frozen=True)
class Pool:
    """A kind of workers.

    Attributes:
        opened: opens it for a function and a number of jobs; yields what submits arguments.
        at_a_time: how many frames to submit together.
        is_apart: whether they are other processes, where what the function changes is not seen here.
        ahead: how many jobs per worker are submitted at a time, those that run included.
        together: how many of the frames of one job are worked on at a time.
    """

    opened: Callable[[Callable[..., Any], int], AbstractContextManager[Callable[..., Future[Any]]]]
    at_a_time: int = 1
    is_apart: bool = False
    ahead: int = _AHEAD
    together: int = 1


@contextmanager
def working(work: Callable[..., Any], jobs: int, progress: Callable[[int], None], pool: Pool) -> Iterator[Workers]:
    """Yields workers for a function. Its errors are raised where a result is taken, or at the end.

    Args:
        work: called with the arguments that are submitted.
        jobs: how many at a time; with 1 the work is done in the call that submits it.
        progress: called from any thread with the number of frames done since the last call.
        pool: which workers. For `PROCESSES` arguments and results must be picklable, the function need not be.

    Raises:
        MemoryError: a process was killed.
    """
    opened = _at_once if jobs == 1 else pool.opened
    with opened(work, jobs) as start:
        workers = Workers(start, jobs * pool.ahead, progress, at_a_time=pool.at_a_time)
        yield workers
    workers.check()


def can_fork() -> bool:
    """Whether forking is safe: there is one thread only. Locks of another would stay locked in the child."""
    if sys.platform != "linux" or threading.active_count() > 1:
        return False
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir()) == 1  # libraries have threads of their own
    except OSError:
        return False


@contextmanager
def _at_once(work: Callable[..., Any], _jobs: int) -> Iterator[Callable[..., Future[Any]]]:
    """Works in the calling thread: handing over to another one takes a tenth longer."""

    def start(*arguments: object) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments))
        except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
            future.set_exception(error)
        return future

    yield start


@contextmanager
def _threads(work: Callable[..., Any], jobs: int) -> Iterator[Callable[..., Future[Any]]]:
    with ThreadPoolExecutor(jobs, "score") as pool:
        yield partial(pool.submit, work)


@contextmanager
def _processes(work: Callable[..., Any], jobs: int) -> Iterator[Callable[..., Future[Any]]]:
    gc.freeze()  # or the workers' garbage collection would write to, and so copy, the parent's pages
    # They import multiprocessing: a tenth of a short command's time.
    from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor  # noqa: PLC0415
    from multiprocessing import get_context  # noqa: PLC0415

    try:
        # Initial arguments are inherited by the fork, not pickled.
        with ProcessPoolExecutor(jobs, get_context("fork"), _begin, (work,)) as pool:
            yield partial(pool.submit, _do)
    except BrokenProcessPool as error:
        raise MemoryError("a process that scored frames was ended from outside") from error


_work: list[Callable[..., Any]] = []  # a worker's own


def _begin(work: Callable[..., Any]) -> None:
    """Sets up a worker: it gets no signals meant for the command, and ends with the command."""
    os.setpgid(0, 0)  # Ctrl-C and `timeout` signal the whole group
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    cv2.setNumThreads(1)  # each core has a worker
    _work[:] = [work]


def _do(*arguments: object) -> Any:
    return _work[0](*arguments)


THREADS = Pool(_threads)
PROCESSES = Pool(_processes, _FRAMES_A_JOB, is_apart=True)


def workers_for(paths: Sequence[Path], jobs: int | None) -> dict[str, Any]:
    """Returns `jobs` and `pool` for `score_dataset`, by where the files are.

    Args:
        paths: of the maps and the ground truth.
        jobs: frames at a time; None for as many as are of use.
    """
    if not any(map(is_remote, paths)):
        return {"jobs": jobs or len(usable_cpus(every_thread=True)), "pool": None}
    # Threads in this process: a forked one would share its connections. Some wait for files, and one scores.
    most = at_a_time(*paths)
    return {"jobs": 1, "pool": Pool(_at_once, _FETCHED_A_JOB, together=1 if most == 1 else jobs or most)}
