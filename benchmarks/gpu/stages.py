"""The stages of `make gpu-check`; `check` runs each in a process of its own: `python -m ... STAGE SETTINGS`."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salema.benchmarks.gpu.gpu_tests import end_when_told, run_sanitizers, run_tests
from salema.benchmarks.gpu.settings import PRECISIONS, Settings, Stage
from salema.benchmarks.machine.environment import describe_environment
from salema.runtime.errors import SalemaError
from salema.runtime.telling import tell

if TYPE_CHECKING:
    from salema.benchmarks.speed.cases import Plan

PEERS = ("pytorch-fp16", "pytorch-fp16-cuda-graph", "pytorch", "pytorch-cuda-graph")


def time_kernels(stage: Stage) -> bool:
    """Times our kernels against copies of as many bytes; returns whether each could be timed."""
    if stage.settings.device == "cpu":
        stage.keep(not_available="it needs a GPU, and the device is cpu")
        return True
    from salema.benchmarks.gpu.kernel_speed import KernelBench, NotMeasured
    from salema.kernels.device.cuda import CudaDevice
    from salema.kernels.device.launcher import CudaLauncher

    rows: list[dict[str, Any]] = []
    lost: list[dict[str, Any]] = []
    with closing(CudaDevice()) as device, device.active(), closing(CudaLauncher(device)) as launcher:
        for row in KernelBench(device, launcher, with_torch=True).measure():
            (lost if isinstance(row, NotMeasured) else rows).append(asdict(row))
            stage.keep(kernels=rows, not_measured=lost)
            tell(f"  {row}")
    return not lost


def bench(stage: Stage) -> bool:
    """Runs `salema-bench`: PyTorch first, then each of our models with it; records what can't run.

    Returns whether something could be timed.
    """
    from salema.benchmarks.gpu.cases import export_models
    from salema.benchmarks.speed.cases import Plan

    settings = stage.settings
    models = [folder for precision in PRECISIONS for folder in export_models(stage, precision)]
    plan = Plan(tuple(models), (), duration_s=settings.seconds, device=settings.device, weights=settings.weights)
    records: list[dict[str, Any]] = []
    passed_over: dict[str, str] = {}
    peers = ("pytorch",) if settings.device == "cpu" else PEERS
    _add(stage, "all of PyTorch", replace(plan, peers=peers), records, passed_over)
    for folder in models:  # a build may take minutes
        backends = _backends(folder, settings.device, passed_over) if stage.left_s > 0 else ()
        if stage.left_s <= 0:
            passed_over[folder.name] = "no time left"
        elif backends:
            own = replace(plan, models=(folder,), backends=backends, peers=("pytorch",))
            _add(stage, folder.name, own, records, passed_over)
    stage.keep(passed_over=passed_over)
    return bool(records)


def _backends(folder: Path, device: str, passed_over: dict[str, str]) -> tuple[str, ...]:
    """Returns the backends of a model, after building its engines. On a GPU, ONNX Runtime runs whole models only."""
    from salema.benchmarks.gpu.cases import build_engine, kinds_here
    from salema.runtime.model_folder import look_up

    names = [] if look_up(folder).is_split else ["onnxruntime"]
    for kind in kinds_here(device):
        try:
            build_engine(folder, kind)
            names.append(kind.backend)
        except SalemaError as error:  # noqa: PERF203 - building takes minutes
            passed_over[f"{folder.name}: {kind.backend}"] = str(error)
    return tuple(names)


def _add(stage: Stage, what: str, plan: Plan, records: list[dict[str, Any]], passed_over: dict[str, str]) -> None:
    """Runs a plan, and keeps its records with those before; what can't run at all is passed over too."""
    from salema.benchmarks.speed.bench import run_bench
    from salema.benchmarks.speed.records import write_records

    missed: dict[str, str] = {}
    try:
        records += run_bench(plan, tell, passed_over=missed)
    except SalemaError as error:
        missed[what] = str(error)
    for name, why in missed.items():
        tell(f"  {name} passed over: {why}")
    passed_over |= missed
    write_records(stage.settings.out / "bench.jsonl", records)
    stage.keep(cases=[_brief(record) for record in records], passed_over=passed_over)


def _brief(record: dict[str, Any]) -> dict[str, Any]:
    share = (record["limit"] or {}).get("graph_share_of_product")
    return {"case": record["case"], "median_ms": record["timing"]["median_ms"], "graph_share_of_product": share}


def parity(stage: Stage) -> bool:
    """Compares every backend that runs here with PyTorch in FP32 over a long video, and times them.

    Returns whether all of them keep to the bounds of their precision.
    """
    from salema.benchmarks.gpu.cases import check_precision

    found = {precision: check_precision(stage, precision) for precision in PRECISIONS}
    failed = [f"{name}, {backend}: {why}" for name, one in found.items() for backend, why in one["failed"].items()]
    if not failed and not any(one["parity"] for one in found.values()):
        stage.keep(not_available="no backend runs here; see passed_over")
    stage.keep(failed=failed)
    return not failed


STAGES: dict[str, Callable[[Stage], bool]] = {
    "tests": run_tests,
    "kernels": time_kernels,
    "bench": bench,
    "parity": parity,
    "sanitizers": run_sanitizers,
}


def run(name: str, settings: Settings) -> bool:
    """Runs a stage; returns whether it succeeded. What fails is recorded, with where it did if it is unforeseen."""
    stage = Stage(name, settings, describe_environment())
    try:
        ok = STAGES[name](stage)
    except SalemaError as error:
        stage.keep(ok=False, error=str(error))
        return False
    except Exception as error:  # noqa: BLE001 - whatever a library raises on a GPU that was never at hand
        stage.keep(ok=False, error=f"{type(error).__name__}: {error}", where=traceback.format_exc())
        return False
    stage.keep(ok=ok)
    return ok


if __name__ == "__main__":
    end_when_told()
    raise SystemExit(int(not run(sys.argv[1], Settings.from_json(sys.argv[2]))))
