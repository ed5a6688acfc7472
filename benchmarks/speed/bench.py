"""One run of `salema-bench`: times the cases in turns, and makes a record of each."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from salema.benchmarks.machine.energy import EnergyMeter
from salema.benchmarks.machine.environment import describe_environment
from salema.benchmarks.peers.peers import open_peer
from salema.benchmarks.speed.cases import (
    Case,
    PassedOver,
    Plan,
    model_record,
    open_cases,
    playable,
    read_frames,
    settle_device,
    stream_of,
)
from salema.benchmarks.speed.engine_timing import time_engine
from salema.benchmarks.speed.harness import LEAST_RUNS, ROUNDS, WARM_UP_MS, Timing, compare_for
from salema.benchmarks.speed.limits import Machine, limit_of, measure_machine
from salema.benchmarks.speed.quality import Quality, compare_maps, run_maps
from salema.benchmarks.speed.records import SCHEMA
from salema.benchmarks.speed.startup import STARTS, start_ms
from salema.runtime.errors import MissingDependencyError, UsageError
from salema.runtime.gpu.device_session import DeviceSession
from salema.runtime.gpu.trt_library import KINDS
from salema.runtime.gpu.trt_session import open_engine
from salema.runtime.model_folder import look_up
from salema.runtime.onnx_metadata import read_spec
from salema.runtime.spec import ModelSpec
from salema.runtime.wording import counted

if TYPE_CHECKING:
    from salema.benchmarks.peers.network import Network
    from salema.runtime.sources.source import Source

Turn = Callable[[int, str], None]
Turns = Callable[[int], AbstractContextManager[Turn]]


@contextmanager
def _no_turns(_: int) -> Iterator[Turn]:
    yield lambda *_: None


CONVENTION = {
    "timing": "wall time of a whole step as a caller sees it: frames in, waited for, maps out, state carried",
    "engine": "as trtexec: device events, one query in flight, graph replayed, transfers apart; null without a GPU",
    "warm_up_ms": WARM_UP_MS,
    "least_runs": LEAST_RUNS,
    "rounds": ROUNDS,
}
_LEAST_RUN_FRAMES, _MOST_RUN_FRAMES = 10, 300


def run_bench(
    plan: Plan,
    say: Callable[[str], None],
    turns: Turns = _no_turns,
    passed_over: PassedOver | None = None,
    records: list[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Measures as planned, and returns a record for each case, for JSON; ratios are against the first peer or model.

    Args:
        plan: what to measure.
        say: takes a line on each step.
        turns: shows progress: takes the number of turns, and yields what is called at each (see `compare_for`).
        passed_over: takes why a case can't run here, by name; None if that is an error.
        records: the list to add the records to, as far as each is known: after an error it holds what was measured.

    Raises:
        SalemaError: a model, peer or source can't be run.
    """
    environment, plan = describe_environment(), settle_device(plan)  # in this order: later the load is our own
    spec = _common_spec(plan.models)
    source = None if plan.source is None else playable(plan.source)
    network = _find_network(plan, spec)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack, EnergyMeter(plan.gpu) as meter:
        say("opening what is compared")
        cases = open_cases(plan, network, stack, Path(name), passed_over)
        for case in cases:
            say(f"{case.name}: {case.precision}, {case.description}")
        frames = read_frames(source, spec)
        quality = _judge(cases, frames, network, say)
        timed = _time_in_turns(plan, cases, frames, meter, turns, say)
        machine = measure_machine(plan.torch_device, {case.precision for case in cases}, plan.duration_s, say)
        shared = _shared(cases[0].name, machine, meter, environment)
        records = [] if records is None else records
        records += [_record(case, *timed[case.name], quality.get(case.name)) | shared for case in cases]
        for case, record in zip(cases, records[-len(cases) :], strict=True):
            record["limit"] = limit_of(case, network, Path(name), machine, record["timing"]["median_ms"])
            _measure_alone(case, record, source, plan, say)
    return records


def _measure_alone(
    case: Case, record: dict[str, Any], source: Source | None, plan: Plan, say: Callable[[str], None]
) -> None:
    """Adds to a case's record what is measured without the others."""
    record["engine"] = _time_bare(case, plan, say)
    record["run"] = _run_whole(case, source, plan.duration_s, record["timing"]["mean_ms"], say)
    record["start_ms"] = _start(case, source, plan, say)


def _time_in_turns(
    plan: Plan,
    cases: list[Case],
    frames: NDArray[np.uint8],
    meter: EnergyMeter,
    turns: Callable[[int], AbstractContextManager[Turn]],
    say: Callable[[str], None],
) -> dict[str, tuple[Timing, float | None]]:
    about = f"{counted(len(cases), 'case')}, {plan.duration_s:g} s each, in {ROUNDS} turns"
    say(f"timing {about}: {len(cases) * plan.duration_s:.3g} s or more")
    if meter.is_barred:
        say("note: joules lack the CPU's: only root may read its meter, /sys/class/powercap/intel-rapl:*/energy_uj")
    steps = {case.name: _stepper(case, frames) for case in cases}
    work = {case.name: float(case.batch) for case in cases}
    with turns((ROUNDS + 1) * len(cases)) as turn:
        return compare_for(steps, cases[0].name, plan.duration_s, work, meter.joules, turn)


def _common_spec(models: tuple[Path, ...]) -> ModelSpec:
    """Returns the spec that the models share: of one network at one size, else ratios would compare unlike work."""
    specs = [read_spec(look_up(model).onnx_files()[0]).whole for model in models]
    for model, spec in zip(models, specs, strict=True):
        for name in ("weights_sha256", "architecture", "coefficient", "height", "width"):
            first, other = getattr(specs[0], name), getattr(spec, name)
            if first != other:
                raise UsageError(
                    f"--model {model}: its {name} is {other}, and that of {models[0]} is {first}; compare exports of"
                    " one checkpoint at one size"
                )
    return specs[0]


def _find_network(plan: Plan, spec: ModelSpec) -> Network | None:
    """Returns the checkpoint in PyTorch, for peers and for true maps; None where it can't be had or is not needed."""
    try:
        from salema.benchmarks.peers.network import load_network, needs_weights  # noqa: PLC0415 - a machine that only runs has no torch
    except ImportError as error:
        if plan.peers:
            raise MissingDependencyError(f"{error}; install it with: pip install 'salema[export]'") from error
        return None
    if not plan.peers and plan.weights is None and needs_weights(spec):
        return None
    return load_network(spec, plan.weights)


def _judge(
    cases: list[Case], frames: NDArray[np.uint8], network: Network | None, say: Callable[[str], None]
) -> dict[str, Quality]:
    """Compares every case's maps with PyTorch in float32, or with the first float32 case."""
    say(f"running {counted(len(frames), 'frame')} through each, to compare the maps")
    maps_of = {case.name: run_maps(case.runner, frames, case.batch) for case in cases}
    if network is not None:
        truth, _ = open_peer("pytorch", network, 1, "cpu", Path())
        reference, expected = "pytorch fp32", run_maps(truth, frames, 1)
    else:
        plain = next((case for case in cases if case.precision == "fp32"), None)
        if plain is None:
            return {}
        reference, expected = plain.name, maps_of[plain.name]
    return {name: compare_maps(maps, expected, reference) for name, maps in maps_of.items() if name != reference}


def _stepper(case: Case, frames: NDArray[np.uint8]) -> Callable[[], object]:
    """Returns a function that runs one step of a case, on the next frame each time."""
    batches = itertools.cycle([np.repeat(frame[np.newaxis], case.batch, 0) for frame in frames])
    return lambda: case.runner.infer(next(batches))


def _time_bare(case: Case, plan: Plan, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Times the engine of one of our models alone; None for what has no TensorRT engine."""
    if case.folder is None or not isinstance(stream_of(case).session, DeviceSession):
        return None
    kind = KINDS[stream_of(case).session.backend]
    say(f"timing the engine of {case.name} alone")
    engine, device, launcher = open_engine(look_up(case.folder), kind, plan.gpu or 0)
    try:
        with device.active():
            try:
                return asdict(time_engine(engine, device, launcher, case.batch, plan.duration_s))
            finally:
                engine.close()
                launcher.close()
    finally:
        device.close()


def _run_whole(
    case: Case, source: Source | None, duration_s: float, mean_ms: float, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """Runs a source through one of our models to an MP4, and returns where the time went; None without a source."""
    if case.folder is None or source is None or case.batch != 1:
        return None
    from salema.runtime.output.outputs import Outputs  # noqa: PLC0415
    from salema.runtime.run.pipeline import process_video  # noqa: PLC0415 - PyAV is needed for videos only
    from salema.runtime.sources.playback import Playback  # noqa: PLC0415
    from salema.runtime.sources.selection import Selection  # noqa: PLC0415

    say(f"running the source through {case.name} as salema-run does")
    frames = int(min(max(1e3 * duration_s / mean_ms, _LEAST_RUN_FRAMES), _MOST_RUN_FRAMES))
    with (
        tempfile.TemporaryDirectory() as folder,
        Playback(source, Selection(loop=0, max_frames=frames)) as playback,
    ):
        stream = stream_of(case)
        stream.reset()
        summary = process_video(stream, playback, Outputs(video=Path(folder) / "run.mp4"))
        size = playback.height, playback.width
    return {
        "source": Path(source.shown).name,  # a path is of one machine
        "source_hw": size,
        "frames": summary.frames,
        "fps": summary.fps,
        "stage_ms": summary.stage_ms,
        "error": summary.error,
    }


def _start(case: Case, source: Source | None, plan: Plan, say: Callable[[str], None]) -> dict[str, float] | None:
    """Times how long a start takes; None for peers, and without a source."""
    if case.folder is None or source is None or plan.source is None or case.batch != 1:
        return None
    say(f"starting {case.name} anew, {counted(STARTS, 'time')}")
    return start_ms(case.folder, case.backend, plan.device, plan.source)


def _record(case: Case, timing: Timing, joules: float | None, quality: Quality | None) -> dict[str, Any]:
    spec = stream_of(case).spec if case.folder else None
    return {
        "schema": SCHEMA,
        "kind": "case",
        "case": case.name,
        "is_peer": case.folder is None,
        "backend": case.backend,
        "description": case.description,
        "precision": case.precision,
        "batch": case.batch,
        "model": model_record(case.folder, spec) if case.folder and spec else None,
        "timing": asdict(timing),
        "fps": 1e3 * case.batch / timing.mean_ms,
        "energy_j_per_frame": None if joules is None else joules / case.batch,
        "memory_mb": case.memory_mb,
        "quality": None if quality is None else asdict(quality),
        **dict.fromkeys(("limit", "engine", "run", "start_ms")),
    }


def _shared(baseline: str, machine: Machine, meter: EnergyMeter, environment: dict[str, Any]) -> dict[str, Any]:
    return {
        "baseline": baseline,
        "device": machine.device,
        "rates": asdict(machine.rates),
        "peaks": None if machine.peaks is None else asdict(machine.peaks),
        "energy_sources": meter.sources,
        "convention": CONVENTION,
        "time_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": environment,
    }
