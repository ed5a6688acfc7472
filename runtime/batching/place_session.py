"""A place of a batch as the session of one stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from salema.runtime.batching.joint_step import JointStep, Request, Row, Stepped
from salema.runtime.batching.stepper import Stepper
from salema.runtime.postprocess import Pictures, ToDraw
from salema.runtime.session import Session, States


class PlaceSession(Session):
    """A `Session` whose step waits for the batch that holds its frame. Closing it calls `leave`."""

    def __init__(
        self, session: Session, joint: JointStep, stepper: Stepper, place: int, leave: Callable[[], None]
    ) -> None:
        self._joint, self._stepper, self._place, self._leave = joint, stepper, place, leave
        self.spec = replace(session.spec, batch=1)
        self.backend, self.device, self.reason = session.backend, session.device, session.reason
        self.runs_on = f"{session.runs_on}, in batches with other streams"
        self._computes_in = session.computes_in

    @property
    def computes_in(self) -> str:
        """See `Session.computes_in`."""
        return self._computes_in

    def step(self, frames: NDArray[np.uint8], states: States, mix: NDArray[np.float32]) -> Stepped:
        """See `Session.step`, for one stream.

        Raises:
            UsageError: the place or its batch is closed.
            BackendError: the step was aborted.
        """
        self.check_open()
        return self._stepper.step(Request(self._place, frames[0], mix[0], states[0]))

    def from_host(self, arrays: Mapping[str, NDArray[np.float32]]) -> States:
        """See `Session.from_host`; the next step takes the arrays to the device."""
        self.check_open()
        return (Row(arrays={name: np.array(array, np.float32) for name, array in arrays.items()}),)

    def to_host(self, states: States) -> dict[str, NDArray[np.float32]]:
        """See `Session.to_host`; waits for the step that is running."""
        self.check_open()
        return self._joint.to_host(states[0])

    def gather(self, rows: Sequence[tuple[States, int]]) -> States:
        """See `Session.gather`; there is one stream only."""
        ((states, _),) = rows
        return states

    def abort(self) -> None:
        """See `Session.abort`: ends the wait, and leaves the other places' step alone."""
        self._stepper.give_up(self._place)

    def close(self) -> None:
        """See `Session.close`: frees the place, not the model."""
        if self.is_open:
            super().close()
            self._leave()


class PicturePlaceSession(PlaceSession):
    """A `PictureSession`, where the batch's session is one: the pictures of all places are drawn in one step."""

    def step_pictures(
        self, to_draw: Mapping[int, ToDraw], states: States, mix: NDArray[np.float32]
    ) -> tuple[dict[int, Pictures], States]:
        """See `PictureSession.step_pictures`, for one stream; waits as `step` does.

        Raises:
            UsageError: the place or its batch is closed.
            BackendError: the step was aborted.
        """
        self.check_open()
        pictures, after = self._stepper.step(Request(self._place, to_draw[0], mix[0], states[0]))
        return {0: pictures}, after
