"""What `salema-run --dataset --ray` does: runs a dataset on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from salema.runtime.cli.opening import Opening, tell_if_untrained
from salema.runtime.cli.run_modes import DatasetRun
from salema.runtime.cpu import threads_for
from salema.runtime.errors import BackendError, UsageError
from salema.runtime.fleet.cluster import Cluster, connected
from salema.runtime.fleet.fleet import Fleet
from salema.runtime.fleet.size import Size, workers_that_fit
from salema.runtime.fleet.worker import sent_model
from salema.runtime.gpu.trt_library import KINDS
from salema.runtime.model_folder import ModelFolder, look_up
from salema.runtime.onnx_metadata import read_spec
from salema.runtime.run.dataset_layouts import FrameFolder
from salema.runtime.spec import ModelSpec
from salema.runtime.telling import tell
from salema.runtime.wording import counted

_ON_GPU_ONLY = (*KINDS, "onnxruntime-tensorrt")
_ON_EITHER = ("auto", "onnxruntime")


def run_over_cluster(asked: DatasetRun, opening: Opening, address: str, jobs: int | None) -> None:
    """Writes the maps of a dataset on a Ray cluster, and prints the result; see `run_over_dataset`.

    Raises:
        SalemaError: an option is wrong, there is no video to run, or the cluster or the model can't be used.
        SystemExit: see `DatasetRun.run`.
    """
    cores = _checked(asked, opening)
    model = look_up(opening.model)
    spec = read_spec(model.onnx_files()[0])
    everywhere = replace(asked, source=asked.source.absolute(), target=asked.target.absolute())
    videos = everywhere.videos(spec.weights)
    with connected(address) as cluster:
        size = _size(cluster, opening, model, cores, jobs)
        fitting = [node for node in cluster.nodes() if node.cores >= size.cores and node.gpus >= size.gpus]
        shared = cluster.check(fitting, _seen(videos), everywhere.target)
        sent = sent_model(model, **_arguments(cluster, opening, size))
        _announce(spec, cluster, size, min(size.workers, len(videos)), len(fitting))
        asked.run(videos, lambda bar: Fleet(cluster, size, sent, shared, bar.note))


def _checked(asked: DatasetRun, opening: Opening) -> int:
    """Refuses options that are wrong; returns the cores of each worker."""
    asked.check()
    if opening.device.startswith("cuda:"):
        raise UsageError(f"--device {opening.device}: Ray gives each worker its GPU; give --device cuda")
    return threads_for(1 if opening.threads is None else opening.threads)


def _seen(videos: Sequence[FrameFolder]) -> list[Path]:
    """Returns files that every node must see: the first of the first video, and the last of the last."""
    return [video.film or video.frames[place] for video, place in ((videos[0], 0), (videos[-1], -1))]


def _size(cluster: Cluster, opening: Opening, model: ModelFolder, cores: int, jobs: int | None) -> Size:
    """Returns how many workers are asked for, and what each takes. More than fit wait until nodes are added."""
    nodes = cluster.nodes()
    gpus = int(_wants_gpu(opening, model) and any(node.gpus for node in nodes))
    if opening.device == "cuda" and not gpus:
        raise BackendError("--device cuda: the cluster has no GPU that Ray knows of")
    fitting = workers_that_fit(cluster, cores, gpus)
    if not fitting:
        most = max((node.cores for node in nodes), default=0)
        raise BackendError(
            f"--threads {cores}: no node of the cluster has {counted(cores, 'CPU')}; the largest has {most:g}"
        )
    if gpus and not all(node.gpus for node in nodes):
        tell("note: nodes without a GPU are not used; --device cpu takes the CPUs of all")
    return Size(jobs or fitting, cores, gpus)


def _wants_gpu(opening: Opening, model: ModelFolder) -> bool:
    """Whether each worker takes a GPU, so that nodes without one are not used."""
    if opening.backend == "auto" and opening.device == "auto":
        return model.is_engine or any(map(model.has_engine, KINDS.values()))
    return opening.device == "cuda" or (opening.device == "auto" and opening.backend in _ON_GPU_ONLY)


def _arguments(cluster: Cluster, opening: Opening, size: Size) -> dict[str, Any]:
    """Returns the arguments of `load` for each worker: the CPU where Ray has GPUs, and gives it none."""
    device, has_gpus = opening.device, any(node.gpus for node in cluster.nodes())
    if has_gpus and not size.gpus and device == "auto" and opening.backend in _ON_EITHER:
        device = "cpu"
        tell("note: no GPU is used, as there is no engine; --device cuda takes the nodes with a GPU, and no others")
    how = {"backend": opening.backend, "device": device, "graphs": opening.graphs}
    return {**how, "threads": size.cores, "retune": opening.retune}


def _announce(spec: ModelSpec, cluster: Cluster, size: Size, workers: int, nodes: int) -> None:
    each = counted(size.cores, "core") + (" and a GPU" if size.gpus else "")
    where = f"{counted(workers, 'worker')} of {each}, {counted(nodes, 'node')}"
    room = workers_that_fit(cluster, size.cores, size.gpus)
    waiting = f"; {room} fit now, and the others wait for nodes" if workers > room else ""
    tell(f"{spec.architecture} {spec.precision} on Ray: {where}{waiting}")
    tell_if_untrained(spec)
