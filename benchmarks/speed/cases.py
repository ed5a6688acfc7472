"""What `salema-bench` compares: exported models on their backends, and peers, each with its own stream."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.machine.memory import resident_mb
from salema.benchmarks.peers.peers import PEERS, Runner, naive_model, open_peer
from salema.export.weights.seeded import moving_disc
from salema.kernels.gpus import list_gpus
from salema.runtime import load
from salema.runtime.errors import BackendError, SalemaError, UsageError, reason
from salema.runtime.files.whole_files import sha256_of
from salema.runtime.model_folder import look_up
from salema.runtime.preprocess import to_network_size
from salema.runtime.session import DEVICE, DEVICES
from salema.runtime.spec import ModelSpec

if TYPE_CHECKING:
    from salema.benchmarks.peers.network import Network
    from salema.runtime.sources.source import Source
    from salema.runtime.stream import SaliencyStream

FRAMES = 16
_FIRST_STEPS = 4  # a session on a GPU records its two graphs in the first two, and replays them in the others
PassedOver = dict[str, str]
"""Why cases can't run here, by name."""


@dataclass(frozen=True)
class Plan:
    """What a user asks for; see `salema-bench --help`. `own` gives a model its own backends, by its place."""

    models: tuple[Path, ...]
    backends: tuple[str, ...] = ("auto",)
    peers: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1,)
    duration_s: float = 10
    device: str = "auto"
    source: str | None = None
    weights: str | None = None
    own: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.peers:
            if name not in PEERS:
                raise UsageError(f"--compare {name}: not one of {', '.join(PEERS)}")
        if not DEVICE.fullmatch(self.device):
            raise UsageError(f"--device {self.device}: not one of {', '.join(DEVICES)}")
        if min(self.batches) < 1:
            raise UsageError(f"--batch {min(self.batches)}: give 1 or more")
        if not 0 < self.duration_s < float("inf"):
            raise UsageError(f"--duration {self.duration_s:g}: give seconds, more than 0")

    @property
    def gpu(self) -> int | None:
        """The number of the GPU that all cases run on; None on the CPU."""
        if self.device == "cpu" or (self.device == "auto" and self._wants_cpu):
            return None
        if self.device != "auto":
            return int(self.device.partition(":")[2] or 0)
        try:
            return 0 if list_gpus() else None
        except BackendError:
            return None

    @property
    def torch_device(self) -> str:
        """The device as PyTorch names it."""
        gpu = self.gpu
        return "cpu" if gpu is None else f"cuda:{gpu}"

    @property
    def _wants_cpu(self) -> bool:
        """Whether a named backend runs on the CPU only: its peers must then run there too."""
        named = itertools.chain.from_iterable(map(self.backends_of, range(len(self.models))))
        return any(name.startswith(("ncnn", "openvino")) for name in named)

    def backends_of(self, place: int) -> tuple[str, ...]:
        """Returns the backends of the model at that place in `models`."""
        return self.own.get(place, self.backends)


def settle_device(plan: Plan) -> Plan:
    """Returns the plan with the CPU as its device where `auto` has the first model run there, GPU or not.

    ONNX Runtime without CUDA does, and what the model is measured against must then run there too.
    """
    if plan.device != "auto" or plan.gpu is None or not plan.backends_of(0):
        return plan
    with load(plan.models[0], backend=plan.backends_of(0)[0]) as stream:
        return replace(plan, device="cpu") if stream.session.device == "cpu" else plan


@dataclass
class Case:
    """One thing to time, by a name that is unique in its run; `folder` is None for a peer.

    `memory_mb` is what opening it and its first steps added to the process, in MB of 10**6 bytes.
    """

    name: str
    backend: str
    precision: str
    batch: int
    folder: Path | None
    runner: Runner
    description: str
    memory_mb: float


def open_cases(
    plan: Plan, network: Network | None, stack: ExitStack, scratch: Path, passed_over: PassedOver | None = None
) -> list[Case]:
    """Opens peers, then models, for each batch; the stack closes them.

    `scratch` is a folder for naive exports. `passed_over` takes why a case can't run here, by name; None if that is an
    error.

    Raises:
        SalemaError: one of them, or none at all, can run here.
    """
    cases: list[Case] = []
    for name, opener in _openers(plan, network, stack, scratch):
        if name in {case.name for case in cases}:
            raise UsageError(f"{name}: asked for twice; name each model, backend and peer once")
        try:
            cases.append(opener())
        except SalemaError as error:
            if passed_over is None:
                raise
            passed_over[name] = str(error)
    if not cases:
        raise BackendError("none of what was to be compared can run here")
    return cases


def _openers(
    plan: Plan, network: Network | None, stack: ExitStack, scratch: Path
) -> Iterator[tuple[str, Callable[[], Case]]]:
    for batch in plan.batches:
        for peer in plan.peers:
            assert network is not None
            yield (
                _named(peer, batch),
                partial(_open_peer_case, peer, network, batch, plan.torch_device, stack, scratch),
            )
        for place, (folder, model) in enumerate(zip(plan.models, model_names(plan.models), strict=True)):
            for backend in plan.backends_of(place):
                name = f"{model}: {backend}"
                yield _named(name, batch), partial(_open_model_case, folder, name, backend, batch, plan, stack)


def _open_peer_case(name: str, network: Network, batch: int, device: str, stack: ExitStack, scratch: Path) -> Case:
    if not name.startswith("pytorch"):
        naive_model(network, batch, scratch)  # exporting takes memory that is not the peer's
    before_mb = resident_mb()
    try:
        runner, precision = open_peer(name, network, batch, device, scratch)
        stack.enter_context(closing(runner))
        _try_out(runner, batch, network.spec)
    except SalemaError:
        raise
    except Exception as error:  # an error of a library: a missing compiler, say
        raise BackendError(f"--compare {name}: it does not run here ({reason(error)}); leave it out") from error
    grown_mb = resident_mb() - before_mb
    described = f"{PEERS[name]}; on {device}"
    return Case(_named(name, batch), name, precision, batch, None, runner, described, grown_mb)


def _open_model_case(folder: Path, name: str, backend: str, batch: int, plan: Plan, stack: ExitStack) -> Case:
    before_mb = resident_mb()
    stream = stack.enter_context(load(folder, backend=backend, device=plan.device, streams=batch))
    if plan.gpu is not None and stream.session.device == "cpu":
        raise UsageError(
            f"--device {plan.device}: {name} runs on the CPU, and what it is measured against on a GPU; give"
            " --device cpu, or leave it out"
        )
    _try_out(stream, batch, stream.spec)
    precision = stream.session.computes_in
    grown_mb = resident_mb() - before_mb
    return Case(_named(name, batch), backend, precision, batch, folder, stream, stream.description, grown_mb)


def _try_out(runner: Runner, batch: int, spec: ModelSpec) -> None:
    for _ in range(_FIRST_STEPS):
        runner.infer(np.zeros((batch, spec.height, spec.width, 3), np.uint8))


def model_names(folders: Sequence[Path]) -> list[str]:
    """Names each model by the end of its path, as short as tells all apart."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def _named(name: str, batch: int) -> str:
    return name if batch == 1 else f"{name}, batch {batch}"


def stream_of(case: Case) -> SaliencyStream:
    """Returns the stream of a case that is one of our models."""
    return cast("SaliencyStream", case.runner)


def playable(name: str) -> Source:
    """Returns the one source that `name` means.

    Raises:
        UsageError: it means several, or one that can't be played again, such as a camera.
        VideoError: there is no such source.
    """
    from salema.runtime.sources.source import find_sources  # noqa: PLC0415 - PyAV is needed for videos only

    sources = find_sources([name])
    if len(sources) != 1 or not sources[0].repeatable:
        what = f"stands for {len(sources)} sources" if len(sources) != 1 else "can't be played again and again"
        raise UsageError(f"--source {name}: {what}; give one video file or folder of frames")
    return sources[0]


def read_frames(source: Source | None, spec: ModelSpec) -> NDArray[np.uint8]:
    """Returns up to `FRAMES` frames `[T, H, W, 3]` of a source at network size; a moving disc without one.

    Raises:
        SalemaError: the source can't be read.
    """
    if source is None:
        return moving_disc(FRAMES, spec.height, spec.width)
    from salema.runtime.sources.playback import Playback  # noqa: PLC0415 - PyAV is needed for videos only
    from salema.runtime.sources.selection import Selection  # noqa: PLC0415

    with Playback(source, Selection(max_frames=FRAMES)) as playback:
        return np.stack([to_network_size(frame.image_bgr, spec.height, spec.width) for frame in playback])


def model_record(folder: Path, spec: ModelSpec) -> dict[str, Any]:
    """Returns what a record says of an exported model; ncnn's files are included."""
    model = look_up(folder)
    return {
        "folder": folder.name,
        "sha256": {path.name: sha256_of(path) for path in model.sources},
        "architecture": spec.architecture,
        "height": spec.height,
        "width": spec.width,
        "exported_batch": spec.batch,
        "precision": spec.precision,
        "rewrites": list(spec.rewrites),
        "float_layers": list(spec.float_layers),
        "split": model.is_split,
        "weights": spec.weights,
        "weights_sha256": spec.weights_sha256,
    }
