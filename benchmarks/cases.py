"""What `salema-bench` compares: exported models on their backends, and peers, each with a stream of its own."""

from __future__ import annotations

import itertools
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from salema.benchmarks.memory import resident_mb
from salema.benchmarks.peers import PEERS, Runner, open_peer
from salema.export.seeded import moving_disc
from salema.kernels.errors import BackendError
from salema.kernels.gpus import list_gpus
from salema.runtime import load
from salema.runtime.engine_files import sha256_of
from salema.runtime.errors import UsageError
from salema.runtime.preprocess import to_network_size
from salema.runtime.session import find_parts

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from salema.benchmarks.network import Network
    from salema.runtime.spec import ModelSpec
    from salema.runtime.stream import SaliencyStream

FRAMES = 16


@dataclass(frozen=True)
class Plan:
    """What a user asks for; see `salema-bench --help`."""

    models: tuple[Path, ...]
    backends: tuple[str, ...] = ("auto",)
    peers: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1,)
    duration_s: float = 10
    device: str = "auto"
    source: str | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        for name in self.peers:
            if name not in PEERS:
                raise UsageError(f"--compare {name}: not one of {', '.join(PEERS)}")
        if min(self.batches) < 1:
            raise UsageError(f"--batch {min(self.batches)}: give 1 or more")
        if not 0 < self.duration_s < float("inf"):
            raise UsageError(f"--duration {self.duration_s:g}: give seconds, more than 0")

    @property
    def on_gpu(self) -> bool:
        """Whether peers run on a GPU."""
        if self.device != "auto":
            return self.device != "cpu"
        try:
            return bool(list_gpus())
        except BackendError:
            return False


@dataclass
class Case:
    """One thing to time.

    Attributes:
        name: unique in its run.
        backend: of ours as `--backend` names it, or a peer's name.
        precision: that it runs in.
        batch: streams per step.
        folder: of the exported model; None for a peer.
        runner: what runs.
        description: backend and device, for people.
        memory_mb: what the process grew by while it was opened and ran once, in MB of 10**6 bytes.
    """

    name: str
    backend: str
    precision: str
    batch: int
    folder: Path | None
    runner: Runner
    description: str
    memory_mb: float


def open_cases(plan: Plan, network: Network | None, stack: ExitStack, scratch: Path) -> list[Case]:
    """Opens peers, then models, in each batch; all are closed with the stack.

    Args:
        plan: what is wanted.
        network: what peers run; None if there are none.
        stack: takes what must be closed.
        scratch: a folder for naive exports.

    Raises:
        SalemaError: one of them can't run here.
    """
    cases = []
    for batch in plan.batches:
        for name in plan.peers:
            assert network is not None
            cases.append(_open_peer_case(name, network, batch, "cuda" if plan.on_gpu else "cpu", stack, scratch))
        pairs = itertools.product(plan.models, plan.backends)
        cases += [_open_model_case(folder, backend, batch, plan, stack) for folder, backend in pairs]
    names = [case.name for case in cases]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name}: asked for twice; name each model, backend and peer once")
    return cases


def _open_peer_case(name: str, network: Network, batch: int, device: str, stack: ExitStack, scratch: Path) -> Case:
    before_mb = resident_mb()
    runner, precision = open_peer(name, network, batch, device, scratch)
    stack.enter_context(closing(runner))
    runner.infer(np.zeros((batch, network.spec.height, network.spec.width, 3), np.uint8))
    grown_mb = resident_mb() - before_mb
    described = f"{PEERS[name]}; on {device}"
    return Case(_named(name, batch), name, precision, batch, None, runner, described, grown_mb)


def _open_model_case(folder: Path, backend: str, batch: int, plan: Plan, stack: ExitStack) -> Case:
    before_mb = resident_mb()
    stream = stack.enter_context(load(folder, backend=backend, device=plan.device, streams=batch))
    spec = stream.spec
    stream.infer(np.zeros((batch, spec.height, spec.width, 3), np.uint8))
    precision = "bf16" if backend.endswith("-bf16") else spec.precision
    name = _named(f"{folder.name}: {backend}", batch)
    grown_mb = resident_mb() - before_mb
    return Case(name, backend, precision, batch, folder, stream, stream.description, grown_mb)


def _named(name: str, batch: int) -> str:
    return name if batch == 1 else f"{name}, batch {batch}"


def stream_of(case: Case) -> SaliencyStream:
    """Returns the stream of a case that is one of our models."""
    return cast("SaliencyStream", case.runner)


def read_frames(source: str | None, spec: ModelSpec) -> NDArray[np.uint8]:
    """Returns up to `FRAMES` frames `[T, H, W, 3]` of a source at network size; a moving disc without one.

    Raises:
        SalemaError: the source can't be read.
    """
    if source is None:
        return moving_disc(FRAMES, spec.height, spec.width)
    from salema.runtime.playback import Playback, Selection  # noqa: PLC0415 - without a video, PyAV is not needed
    from salema.runtime.sources import find_sources  # noqa: PLC0415

    (found,) = find_sources([source])
    with Playback(found, Selection(max_frames=FRAMES)) as playback:
        return np.stack([to_network_size(frame.image_bgr, spec.height, spec.width) for frame in playback])


def model_record(folder: Path, spec: ModelSpec) -> dict[str, Any]:
    """What a record says of an exported model."""
    files = find_parts(folder)
    return {
        "folder": folder.name,
        "sha256": {path.name: sha256_of(path) for path in files},
        "architecture": spec.architecture,
        "height": spec.height,
        "width": spec.width,
        "exported_batch": spec.batch,
        "precision": spec.precision,
        "rewrites": list(spec.rewrites),
        "split": len(files) > 1,
        "weights": spec.weights,
        "weights_sha256": spec.weights_sha256,
    }
