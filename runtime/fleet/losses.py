"""What becomes of videos whose workers are lost, and of nodes that can't fetch theirs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from salema.runtime.errors import UnreachableError, VideoError
from salema.runtime.fleet.cluster import LOW_MEMORY
from salema.runtime.run.summary import Outcome

_MOST_DEATHS = 3
"""How often a video's worker may die: then the video is at fault."""
_MOST_LOSSES = 10
"""How often a video may be lost in all: a node that is lost is no video's fault."""
_MOST_MISSES = 3
"""How many videos in turn a node may fail to fetch: then the node is at fault, if others do better."""


@dataclass
class Losses:
    """Counts what was lost, and decides what is run again."""

    _deaths: Counter[str] = field(default_factory=Counter)
    _losses: Counter[str] = field(default_factory=Counter)
    _missed: set[str] = field(default_factory=set)
    _misses: Counter[str] = field(default_factory=Counter)

    def lost(self, video: str, why: str, *, with_node: bool) -> VideoError | None:
        """Takes that a video's worker was lost; returns why it is given up, or None if it is to be run again.

        Args:
            video: its name.
            why: Ray's sentence.
            with_node: whether the worker's node was lost, or can't be reached.
        """
        self._losses[video] += 1
        self._deaths[video] += not with_node
        times = self._losses[video]
        if self._deaths[video] < _MOST_DEATHS and times < _MOST_LOSSES:
            return None
        memory = " (out of memory)" if LOW_MEMORY in why else ""
        return VideoError(f"given up: its worker died {times} times while it ran it{memory}")

    def is_missed(self, video: str, node: str, outcome: Outcome) -> bool:
        """Takes what became of a video on a node; returns whether it is to be tried once more, by any node.

        That is so the first time that it could not be fetched or its maps not be sent.
        """
        if not isinstance(outcome, UnreachableError):
            self._misses[node] = 0
            return False
        self._misses[node] += 1
        is_first = video not in self._missed
        self._missed.add(video)
        return is_first

    def is_cut_off(self, node: str) -> bool:
        """Whether a node's last few videos could not be fetched or sent."""
        return self._misses[node] >= _MOST_MISSES
