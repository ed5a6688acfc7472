"""Opens the model of a command, and prints what it is and where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from salema.runtime import load
from salema.runtime.batching.stream_batch import StreamBatch
from salema.runtime.telling import tell
from salema.runtime.wording import counted

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from salema.runtime.spec import ModelSpec
    from salema.runtime.stream import SaliencyStream


@dataclass(frozen=True)
class Opening:
    """Which model is opened, and how; see `salema.runtime.load`.

    With `max_wait_ms` it is opened once, and whoever opens it gets a place of its batch; see `StreamBatch`.
    """

    model: Path
    backend: str = "auto"
    device: str = "auto"
    graphs: bool = True
    streams: int | None = None
    threads: int | None = None
    retune: bool = False
    max_wait_ms: float | None = None


class Announced:
    """Opens the model when called, and prints once what it is and where it runs.

    Attributes:
        description: backend and device; empty before the model is opened.
    """

    description = ""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._ahead: SaliencyStream | None = None
        self._batch: StreamBatch | None = None
        self._one_at_a_time = Lock()  # so that the first one's trial is not disturbed, and serves the others

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ahead is not None:  # no call has taken it
            self._ahead.close()
        if self._batch is not None:
            self._batch.close()

    def ahead(self) -> ModelSpec:
        """Opens the stream that the next call will return; returns its model's facts."""
        self._ahead = self()
        return self._ahead.spec

    def __call__(self) -> SaliencyStream:
        """Opens it, or takes a place of its batch; see `load`."""
        if self._ahead is not None:
            stream, self._ahead = self._ahead, None
            return stream
        how = self._opening
        with self._one_at_a_time:
            if how.max_wait_ms is None:
                return self._open(how)
            if self._batch is None:
                self._batch = StreamBatch(self._open(how), how.max_wait_ms)
                streams = counted(self._batch.places, "stream")
                tell(f"{streams} on one model; a frame waits for the others for at most {how.max_wait_ms:g} ms")
        place = self._batch.take_place()
        assert place is not None
        return place

    def _open(self, how: Opening) -> SaliencyStream:
        stream = load(
            how.model,
            backend=how.backend,
            device=how.device,
            streams=how.streams,
            graphs=how.graphs,
            threads=how.threads,
            retune=how.retune and not self.description,
            say=tell,
        )
        if not self.description:
            self.description = stream.description
            tell(f"{stream.spec.architecture} {stream.spec.precision}, {stream.description}")
            tell_if_untrained(stream.spec)
        return stream


def tell_if_untrained(spec: ModelSpec) -> None:
    """Prints a note if a model's weights are not trained."""
    if not spec.trained:
        tell(f"note: {spec.weights} weights are untrained; the maps show that it runs, nothing more")
