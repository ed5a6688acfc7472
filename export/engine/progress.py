"""Shows the progress of a build, with TensorRT's progress monitor, and ends it on a signal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from salema.runtime.stopping import stop_requested


class BuildProgress:
    """A bar on stderr, if that is a terminal. Phases are nested; the bar shows the outermost."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self.phases: list[str] = []
        """The outermost phases so far."""
        self._bar: Any = None

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """Shows that a phase begins."""
        if not parent:
            self.close()
            self.phases.append(phase)
            self._bar = tqdm(total=steps, desc=phase, unit=" steps", disable=None, leave=False)
        elif self._bar is not None:
            self._bar.set_postfix_str(phase)

    def step(self, phase: str, step: int) -> bool:
        """Shows that a step is done; returns whether to go on."""
        if self._bar is not None and phase == self.phases[-1]:
            self._bar.update(step + 1 - self._bar.n)
        return not self._stop.is_set()

    @contextmanager
    def ends_on_interrupt(self) -> Iterator[None]:
        """Makes a signal end the build at its next step or `check`.

        TensorRT ignores exceptions of its callbacks, and most signals arrive while one of them runs.
        """
        with stop_requested() as self._stop:
            yield

    def check(self) -> None:
        """Raises KeyboardInterrupt after a signal."""
        if self._stop.is_set():
            raise KeyboardInterrupt

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()


def make_monitor(trt: Any, progress: BuildProgress) -> Any:
    """Returns a TensorRT `IProgressMonitor` that reports to `progress`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc] # the base is known at run time only
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            """Does nothing: the start of the next phase shows it."""

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

    return Monitor()
