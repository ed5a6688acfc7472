"""Videos given to workers of a Ray cluster; those of workers that die are given to others."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from salema.runtime.errors import BackendError, SalemaError, VideoError
from salema.runtime.fleet.cluster import Cluster, Shared, why_not_there
from salema.runtime.fleet.trials import Trials
from salema.runtime.fleet.worker import News, Opened, SentModel, Worker
from salema.runtime.run.dataset import Outcome, Told, VideoWork
from salema.runtime.run.dataset_layouts import FrameFolder
from salema.runtime.wording import counted

_MOST_DEATHS = 3
"""How often a video's worker may die: then the video is at fault."""
_MOST_LOSSES = 10
"""How often a video may be lost in all: a node that is lost is no video's fault."""
_MOST_FAILED_STARTS = 3
_TICK_S, _NEWS_S, _NEWS_A_SECOND = 0.2, 0.5, 200
_PATIENCE_S, _CLOSE_S = 15.0, 5.0


@dataclass(frozen=True)
class Size:
    """Which workers there are.

    Attributes:
        workers: the most at a time.
        cores: CPUs of each, which its network's threads share.
        gpus: GPUs of each, 0 or 1.
    """

    workers: int
    cores: int
    gpus: int = 0


@dataclass(eq=False)
class _Member:
    """A worker, as seen from here."""

    actor: Any
    kind: str = ""
    is_there: bool = False
    is_open: bool = False
    video: FrameFolder | None = None
    frames: int = 0


class Fleet:
    """Runs videos on a cluster; a `RunAll`.

    Args:
        cluster: where.
        size: on how many workers.
        model: the model, sent once to each node.
        shared: what each node must find.
        say: takes sentences about the workers.
    """

    def __init__(
        self, cluster: Cluster, size: Size, model: SentModel, shared: Shared, say: Callable[[str], None]
    ) -> None:
        self._ray, self._cluster, self._size, self._shared, self._say = cluster.ray, cluster, size, shared, say
        self._is_auto = model.arguments["backend"] == "auto"
        self._model = self._ray.put(model)
        self._members: list[_Member] = []
        self._asked: dict[Any, tuple[_Member, Callable[[_Member, Any], None]]] = {}
        self._idle: list[_Member] = []
        self._todo: deque[FrameFolder] = deque()
        self._ended: deque[tuple[FrameFolder, Outcome]] = deque()
        self._deaths, self._losses = Counter[str](), Counter[str]()
        self._trials, self._runs_on, self._failed_starts = Trials[_Member](), set[str](), 0
        self._quiet_since_s: float | None = None
        self._has_said_why = False

    def __call__(
        self, videos: Sequence[FrameFolder], work: VideoWork, told: Told, stop: threading.Event
    ) -> Iterator[tuple[FrameFolder, Outcome]]:
        """See `RunAll`.

        Raises:
            BackendError: no worker can run here, or none is left.
            SalemaError: the first worker can't open the model.
        """
        self._work, self._told, self._stop = work, told, stop
        self._todo.extend(videos)
        is_stopping = False
        try:
            for _ in range(min(self._size.workers, len(videos))):
                self._add()
            while self._todo or any(member.video for member in self._members):
                if stop.is_set() and not is_stopping:
                    is_stopping = True
                    self._todo.clear()
                    for member in self._members:
                        if member.video:
                            member.actor.stop.remote()
                self._take_answers()
                while self._ended:
                    yield self._ended.popleft()
                self._check_alive()
        finally:
            self._close()

    def _add(self) -> None:
        actor = self._ray.remote(num_cpus=self._size.cores, num_gpus=self._size.gpus, max_restarts=0)(Worker)
        member = _Member(actor.remote(self._work, self._shared, self._size.cores))
        self._members.append(member)
        self._ask(member, member.actor.look.remote(), self._looked)

    def _ask(self, member: _Member, ref: Any, then: Callable[[_Member, Any], None]) -> None:
        self._asked[ref] = member, then

    def _take_answers(self) -> None:
        if not self._asked:
            time.sleep(_TICK_S)
            return
        asked = list(self._asked)
        answered, _ = self._ray.wait(asked, num_returns=len(asked), timeout=0)
        if not answered:
            answered, _ = self._ray.wait(asked, num_returns=1, timeout=_TICK_S)
        for ref in answered:
            member, then = self._asked.pop(ref)
            try:
                answer = self._ray.get(ref)
            except self._ray.exceptions.RayActorError as error:
                self._lost(member, error)
            else:
                then(member, answer)

    def _looked(self, member: _Member, found: tuple[str, str]) -> None:
        lack, member.kind = found
        member.is_there = True
        if lack:  # a node that joined later: the others were checked
            self._leave_out(member, BackendError(f"a node {lack}"))
            return
        if not self._is_auto or self._trials.may_open(member, member.kind):
            self._open(member)

    def _open(self, member: _Member) -> None:
        self._ask(member, member.actor.open.remote(self._model, self._trials.found.get(member.kind)), self._opened)

    def _opened(self, member: _Member, opened: Opened | SalemaError) -> None:
        if isinstance(opened, SalemaError):
            self._leave_out(member, opened)
            return
        member.is_open, self._failed_starts = True, 0
        for other in self._trials.opened(member, member.kind, opened.trial):
            self._open(other)
        if not self._runs_on:
            self._say(f"workers run it in {opened.description}")
        elif opened.runs_on not in self._runs_on:
            self._say(
                f"another worker runs it in {opened.runs_on}: its maps may differ by a grey level; --backend NAME takes"
                " the same on all"
            )
        self._runs_on.add(opened.runs_on)
        self._give(member)

    def _give(self, member: _Member) -> None:
        """Gives a worker its next video."""
        member.video, member.frames = None, 0
        if not self._todo:
            self._idle.append(member)
            return
        member.video = self._todo.popleft()
        member.actor.begin.remote(member.video)
        self._ask_news(member)

    def _ask_news(self, member: _Member) -> None:
        wait_s = max(_NEWS_S, len(self._members) / _NEWS_A_SECOND)
        self._ask(member, member.actor.news.remote(wait_s), self._heard)

    def _heard(self, member: _Member, news: News) -> None:
        assert member.video is not None
        member.frames += news.frames
        self._told.frames(news.frames)
        for note in news.notes:
            self._told.note(note)
        for again in news.again:
            self._told.again(*again)
        if news.has_ended:
            self._ended.append((member.video, news.outcome))
            self._give(member)
        else:
            self._ask_news(member)

    def _lost(self, member: _Member, error: Exception) -> None:
        """Takes the video back from a worker that has died or can't be reached, and takes another worker."""
        video, was_open = member.video, member.is_open
        self._dismiss(member)
        if video is not None:
            self._told.frames(-member.frames)
            self._take_back(video, error)
        elif not was_open:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_FAILED_STARTS:
                raise BackendError(f"{self._failed_starts} workers in turn could not begin: one {why_not_there(error)}")
        if self._stop.is_set():
            return
        while self._todo and self._idle:
            self._give(self._idle.pop())
        if self._todo:
            self._add()

    def _take_back(self, video: FrameFolder, error: Exception) -> None:
        is_of_node = isinstance(error, self._ray.exceptions.ActorUnavailableError) or "node has died" in str(error)
        self._losses[video.name] += 1
        self._deaths[video.name] += not is_of_node
        if self._stop.is_set():
            self._ended.append((video, None))
        elif self._deaths[video.name] >= _MOST_DEATHS or self._losses[video.name] >= _MOST_LOSSES:
            times = self._losses[video.name]
            memory = " (out of memory)" if "running low on memory" in str(error) else ""
            self._ended.append((video, VideoError(f"given up: its worker died {times} times while it ran it{memory}")))
        else:
            what = "the node of a worker was lost" if is_of_node else "a worker died"
            self._told.note(f"{what} while it ran {video.name}; another one runs that from its start")
            self._todo.appendleft(video)

    def _leave_out(self, member: _Member, error: SalemaError) -> None:
        """Goes on without a worker, if there are others that work.

        Raises:
            SalemaError: there are none.
        """
        self._dismiss(member)
        if not any(each.is_open for each in self._members):
            raise error
        self._say(f"a worker is left out: {error}")

    def _dismiss(self, member: _Member) -> None:
        self._members.remove(member)
        if member in self._idle:
            self._idle.remove(member)
        self._ray.kill(member.actor)
        for other in self._trials.gone(member, member.kind):
            self._trials.may_open(other, other.kind)
            self._open(other)

    def _check_alive(self) -> None:
        """Says that there is no free worker, and gives up if no node can ever have one.

        Raises:
            BackendError: no node is large enough any more.
        """
        now_s = time.monotonic()
        if any(member.is_open for member in self._members) or not self._todo:
            self._quiet_since_s = now_s
            return
        self._quiet_since_s = self._quiet_since_s or now_s
        if now_s - self._quiet_since_s < _PATIENCE_S:
            return
        self._quiet_since_s = now_s
        if not workers_that_fit(self._cluster, self._size.cores, self._size.gpus):
            raise BackendError(f"no node of the cluster has {counted(self._size.cores, 'CPU')} any more; go on later")
        if not self._has_said_why:
            self._has_said_why = True
            free = self._ray.available_resources().get("CPU", 0)
            self._say(f"no worker is there yet; {free:g} CPUs of the cluster are free")

    def _close(self) -> None:
        """Ends all workers; idle ones clean up."""
        closing = [member.actor.close.remote() for member in self._members if member.is_there and not member.video]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S)
        for member in self._members:
            self._ray.kill(member.actor)
        self._members.clear()
        self._idle.clear()
        self._asked.clear()


def workers_that_fit(cluster: Cluster, cores: int, gpus: int) -> int:
    """Returns how many workers the nodes that are alive could hold, whatever else they do now."""
    return sum(int(min([node.cores // cores, *([node.gpus // gpus] if gpus else [])])) for node in cluster.nodes())
