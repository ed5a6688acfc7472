"""Videos given to workers of a Ray cluster; those of workers that die are given to others."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from salema.runtime.errors import BackendError, SalemaError, UsageError
from salema.runtime.fleet.cluster import Cluster, node_of, why_not_there
from salema.runtime.fleet.losses import Losses
from salema.runtime.fleet.shared import Shared
from salema.runtime.fleet.size import Size, workers_that_fit
from salema.runtime.fleet.trials import Trials
from salema.runtime.fleet.worker import Looked, News, Opened, SentModel, Worker
from salema.runtime.run.dataset import Told, VideoWork
from salema.runtime.run.dataset_layouts import FrameFolder
from salema.runtime.run.summary import Outcome
from salema.runtime.wording import counted

_MOST_FAILED_STARTS = 3
_TICK_S, _NEWS_S, _NEWS_A_SECOND = 0.2, 0.5, 200
_PATIENCE_S, _CLOSE_S = 15.0, 5.0


@dataclass(eq=False)
class _Member:
    """A worker, as seen from here."""

    actor: Any
    kind: str = ""
    node: str = ""
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
        self._losses = Losses()
        self._trials, self._runs_on, self._failed_starts = Trials[_Member](), set[str](), 0
        self._quiet_since_s: float | None = None
        self._has_said_why, self._left_out = False, list[str]()

    def __call__(
        self, videos: Sequence[FrameFolder], work: VideoWork, told: Told, stop: threading.Event
    ) -> Iterator[tuple[FrameFolder, Outcome]]:
        """See `RunAll`.

        Raises:
            BackendError: no worker can run here, or none is left.
            SalemaError: no worker can open the model.
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
            except self._ray.exceptions.RayTaskError:  # a fault of ours, not a lost worker
                raise
            except self._ray.exceptions.RayError as error:
                self._lost(member, error)
            else:
                then(member, answer)

    def _looked(self, member: _Member, found: Looked) -> None:
        member.kind, member.node, member.is_there = found.kind, found.node, True
        if found.lack:  # a node that joined later: the others were checked
            self._leave_out(member, BackendError(f"node {found.node}: {found.lack}"))
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
        self._tell_left_out()
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
        """Gives a worker its next video, unless its node can't fetch any while others can."""
        member.video, member.frames = None, 0
        others = any(each.is_open and each.node != member.node for each in self._members)
        if others and self._losses.is_cut_off(member.node):
            self._leave_out(member, BackendError(f"node {member.node}: it can't fetch its videos, or send their maps"))
            return
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
            self._end(member, member.video, news.outcome)
            self._give(member)
        else:
            self._ask_news(member)

    def _end(self, member: _Member, video: FrameFolder, outcome: Outcome) -> None:
        """Takes what became of a video; one that could not be fetched is tried once more, by another node perhaps."""
        if not self._losses.is_missed(video.name, member.node, outcome) or self._stop.is_set():
            self._ended.append((video, outcome))
            return
        self._told.frames(-member.frames)
        self._told.note(f"{video.name} is tried once more: {outcome}")
        self._todo.append(video)
        self._give_idle()

    def _give_idle(self) -> None:
        while self._todo and self._idle:
            self._give(self._idle.pop())

    def _lost(self, member: _Member, error: Exception) -> None:
        """Takes the video back from a worker that has died or can't be reached, and takes another worker."""
        video, was_open = member.video, member.is_open
        self._dismiss(member)
        if video is not None:
            self._told.frames(-member.frames)
            self._take_back(video, error)
        if self._stop.is_set():
            return
        if was_open:
            self._failed_starts = 0
        else:
            self._failed_starts += 1
            self._could_not_begin(f"{node_of(error)}: {why_not_there(error)}")
        self._give_idle()
        if self._todo and self._failed_starts < _MOST_FAILED_STARTS:
            self._add()

    def _take_back(self, video: FrameFolder, error: Exception) -> None:
        is_of_node = isinstance(error, self._ray.exceptions.ActorUnavailableError) or "node has died" in str(error)
        given_up = self._losses.lost(video.name, str(error), with_node=is_of_node)
        if self._stop.is_set():
            self._ended.append((video, None))
        elif given_up is not None:
            self._ended.append((video, given_up))
        else:
            what = "the node of a worker was lost" if is_of_node else "a worker died"
            self._told.note(f"{what} while it ran {video.name}; another one runs that from its start")
            self._todo.appendleft(video)

    def _could_not_begin(self, why: str) -> None:
        """Goes on without a worker that could not begin, if there are others or more are tried.

        Raises:
            BackendError: there are none.
        """
        if self._failed_starts >= _MOST_FAILED_STARTS and not self._members:
            raise BackendError(f"{self._failed_starts} workers in turn could not begin; {why}")
        self._tell_left_out(why)

    def _leave_out(self, member: _Member, error: SalemaError) -> None:
        """Goes on without a worker, if there are others.

        Raises:
            SalemaError: there are none, or it would be the same for all.
        """
        self._dismiss(member)
        if not self._members or isinstance(error, UsageError):
            raise error
        self._tell_left_out(str(error) if member.node in str(error) else f"node {member.node}: {error}")

    def _tell_left_out(self, *why: str) -> None:
        """Tells once why workers are left out, as soon as one is open: before that it may be the end of the run."""
        self._left_out += why
        if any(member.is_open for member in self._members):
            for sentence in dict.fromkeys(self._left_out):
                self._say(f"a worker is left out: {sentence}")
            self._left_out.clear()

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
            raise BackendError(f"no node of the cluster has {counted(self._size.cores, 'CPU')} any more; add one")
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
