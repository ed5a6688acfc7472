"""Which worker makes the trial of `auto`, and which ones wait for it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

_Worker = TypeVar("_Worker")


@dataclass
class Trials(Generic[_Worker]):
    """The trials of `auto`: one for each kind of machine, while no other worker of that kind computes.

    Attributes:
        found: the record of a trial, by the kind of machine; None where the backend needed no trial.
    """

    found: dict[str, bytes | None] = field(default_factory=dict)
    _made_by: dict[str, _Worker] = field(default_factory=dict)
    _waiting: dict[str, deque[_Worker]] = field(default_factory=dict)

    def may_open(self, worker: _Worker, kind: str) -> bool:
        """Whether a worker may open its model now; else it is told later, by `opened` or `gone`."""
        if kind in self.found:
            return True
        if self._made_by.setdefault(kind, worker) == worker:
            return True
        self._waiting.setdefault(kind, deque()).append(worker)
        return False

    def opened(self, worker: _Worker, kind: str, trial: bytes | None) -> list[_Worker]:
        """Takes a trial; returns the workers that may open their model now."""
        if self._made_by.get(kind) != worker or kind in self.found:
            return []
        self.found[kind] = trial
        return list(self._waiting.pop(kind, ()))

    def gone(self, worker: _Worker, kind: str) -> list[_Worker]:
        """Takes a worker out; returns the one that makes the trial in its place, if it was to make it."""
        waiting = self._waiting.get(kind, deque())
        if worker in waiting:
            waiting.remove(worker)
        if self._made_by.get(kind) != worker or kind in self.found:
            return []
        del self._made_by[kind]
        return [waiting.popleft()] if waiting else []
