"""What runs on a node: one opened model, and one video at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from salema.runtime import load
from salema.runtime.backends.tuning import RECORD_FILE, installed, machine_kind
from salema.runtime.errors import BackendError, SalemaError, reason
from salema.runtime.files.scratch import scratch_folder, sweep
from salema.runtime.fleet.cluster import node_here
from salema.runtime.fleet.shared import Shared
from salema.runtime.model_folder import ModelFolder
from salema.runtime.run.dataset import VideoWork
from salema.runtime.run.dataset_layouts import FrameFolder
from salema.runtime.run.summary import Outcome
from salema.runtime.stream import SaliencyStream

_MODEL_FILES = {".onnx", ".engine", ".json"}


@dataclass(frozen=True)
class SentModel:
    """A model on its way to a worker.

    Attributes:
        named: the folder or the file in it that the user named: empty, or the file's name.
        files: the folder's files.
        arguments: those of `load`.
    """

    named: str
    files: Mapping[str, bytes]
    arguments: Mapping[str, Any]


def sent_model(model: ModelFolder, **arguments: Any) -> SentModel:
    """Reads a model's files, engines and trials of `auto` included.

    Raises:
        OSError: one can't be read.
    """
    names = sorted(name for name in model.names if Path(name).suffix in _MODEL_FILES)
    named = "" if model.named == model.folder else model.named.name
    return SentModel(named, {name: (model.folder / name).read_bytes() for name in names}, arguments)


@dataclass(frozen=True)
class Opened:
    """How a worker runs its model.

    Attributes:
        runs_on: backend and device, in words.
        description: the same, and why.
        trial: the record of `auto`'s trial on this kind of machine; None without one.
    """

    runs_on: str
    description: str
    trial: bytes | None


@dataclass(frozen=True)
class Looked:
    """What a worker finds on its node.

    Attributes:
        lack: what the node lacks, in words; empty if it lacks nothing.
        kind: the node's kind; the trial of `auto` holds for all nodes of a kind.
        node: its `Node.name`.
    """

    lack: str
    kind: str
    node: str


@dataclass
class News:
    """What a worker has to tell since it was asked last.

    Attributes:
        frames: number of frames done.
        notes: sentences for the user.
        again: videos that are run again, and why.
        has_ended: whether its video has.
        outcome: what became of that.
    """

    frames: int = 0
    notes: list[str] = field(default_factory=list)
    again: list[tuple[str, str]] = field(default_factory=list)
    has_ended: bool = False
    outcome: Outcome = None


class Worker:
    """Ray makes an actor of it. Its methods return at once or soon, so that it can be asked and stopped as it runs."""

    def __init__(self, work: VideoWork, shared: Shared, threads: int) -> None:
        self._work, self._shared, self._threads = work, shared, threads
        self._open, self._stream = ExitStack(), list[SaliencyStream]()
        self._stop, self._ended = threading.Event(), threading.Event()
        self._lock, self._news = threading.Lock(), News()
        self._failure: Exception | None = None

    def look(self) -> Looked:
        """Returns what this worker finds before it opens the model."""
        return Looked(self._shared.missing_here(), machine_kind(installed(), self._threads), node_here())

    def open(self, model: SentModel, trial: bytes | None) -> Opened | SalemaError:
        """Opens the model.

        Args:
            model: the model.
            trial: the record of a trial on another machine of this kind; None makes one, if the backend is `auto`.
        """
        try:
            return self._opened(model, trial)
        except (OSError, MemoryError) as error:
            return error if isinstance(error, SalemaError) else _of_node(error)

    def _opened(self, model: SentModel, trial: bytes | None) -> Opened | SalemaError:
        cv2.setNumThreads(self._threads)
        folder = self._open.enter_context(scratch_folder())
        for name, data in {**model.files, **({RECORD_FILE: trial} if trial else {})}.items():
            (folder / name).write_bytes(data)
        retune = model.arguments["retune"] and trial is None
        try:
            stream = load(folder / model.named, **{**model.arguments, "retune": retune}, streams=1)
        except SalemaError as error:
            return type(error)(str(error).replace(f"{folder}", "the model sent"))
        self._open.callback(stream.close)
        self._stream.append(stream)
        record = folder / RECORD_FILE
        return Opened(stream.session.runs_on, stream.description, record.read_bytes() if record.is_file() else None)

    def begin(self, video: FrameFolder) -> None:
        """Begins to run a video; its end is told in `news`."""
        self._ended.clear()
        threading.Thread(target=self._run, args=(video,), name="video", daemon=True).start()

    def _run(self, video: FrameFolder) -> None:
        outcome: Outcome = None
        try:
            outcome = self._work(video, self._stream[0], self, self._stop)
        except SalemaError as error:
            outcome = error
        except (OSError, MemoryError) as error:
            outcome = _of_node(error)
        except Exception as error:  # noqa: BLE001 - raised where the driver asks
            self._failure = error
        with self._lock:
            self._news.has_ended, self._news.outcome = True, outcome
        self._ended.set()

    def frames(self, count: int) -> None:
        """See `Told`, as for the next two."""
        with self._lock:
            self._news.frames += count

    def note(self, sentence: str) -> None:
        """See `Told`."""
        with self._lock:
            self._news.notes.append(sentence)

    def again(self, video: str, why: str) -> None:
        """See `Told`."""
        with self._lock:
            self._news.again.append((video, why))

    def news(self, wait_s: float) -> News:
        """Waits for the end of the video, at most so long, and returns what is new."""
        self._ended.wait(wait_s)
        if self._failure is not None:
            raise self._failure
        with self._lock:
            told, self._news = self._news, News()
        return told

    def stop(self) -> None:
        """Ends the video after the frames that are being processed."""
        self._stop.set()

    def close(self) -> None:
        """Closes the model, and removes temporary files, those of killed workers of this node too."""
        self._open.close()
        sweep()


def _of_node(error: OSError | MemoryError) -> BackendError:
    """Returns a fault of this node, such as a full disk, in a sentence that names it."""
    why = "too little memory" if isinstance(error, MemoryError) else reason(error)
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    return BackendError(f"node {node_here()}: {where}{why}")
