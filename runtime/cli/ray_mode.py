"""What `salema-run --dataset --ray` does: runs a dataset on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from salema.runtime.cli.opening import Opening, tell_if_untrained
from salema.runtime.cli.run_modes import DatasetChoice, bar_of
from salema.runtime.cli.run_report import report_dataset
from salema.runtime.cpu import threads_for
from salema.runtime.errors import BackendError, UsageError
from salema.runtime.files.remote_path import is_remote
from salema.runtime.fleet.cluster import Cluster, connected
from salema.runtime.fleet.fleet import Fleet, Size, workers_that_fit
from salema.runtime.fleet.worker import sent_model
from salema.runtime.model_folder import look_up
from salema.runtime.onnx_metadata import read_spec
from salema.runtime.output.map_size import MapSize, check_map_size
from salema.runtime.run.dataset import VideoWork, run_everywhere
from salema.runtime.run.dataset_layouts import FrameFolder
from salema.runtime.spec import ModelSpec
from salema.runtime.stopping import stop_requested
from salema.runtime.telling import tell
from salema.runtime.wording import counted

_ON_CPU_ONLY = ("ncnn", "openvino", "openvino-bf16")


def run_over_cluster(
    choice: DatasetChoice,
    opening: Opening,
    address: str,
    *,
    jobs: int | None,
    resume: bool,
    map_size: MapSize,
    strict: bool,
    as_json: bool,
) -> None:
    """Writes the maps of a dataset on a Ray cluster, and prints the result; see `run_over_dataset`.

    Raises:
        SalemaError: an option is wrong, there is no video to run, or the cluster or the model can't be used.
        SystemExit: a video failed, or the run was interrupted.
    """
    cores = _checked(choice, opening, map_size)
    model = look_up(opening.model)
    spec = read_spec(model.onnx_files()[0])
    videos = replace(choice, source=_absolute(choice.source), target=_absolute(choice.target)).videos(spec.weights)
    work, sent = VideoWork(resume, map_size), {"device": opening.device, "graphs": opening.graphs}
    with connected(address) as cluster:
        size = _size(cluster, opening, cores, jobs)
        fitting = [node for node in cluster.nodes() if _fit(node.cores, node.gpus, size)]
        shared = cluster.check(fitting, _seen(videos), _absolute(choice.target))
        _announce(spec, size, min(size.workers, len(videos)), len(fitting))
        sent |= {"backend": opening.backend, "threads": cores, "retune": opening.retune}
        with stop_requested() as stop, bar_of(videos) as bar:
            fleet = Fleet(cluster, size, sent_model(model, **sent), shared, bar.note)
            summary = run_everywhere(
                *(videos, fleet, work),
                strict=strict,
                stop=stop,
                progress=lambda more_videos, more_frames: bar.advance(more_frames, more_videos),
                notify=bar.note,
            )
    report_dataset(summary, len(videos), choice.target, as_json=as_json)


def _checked(choice: DatasetChoice, opening: Opening, map_size: MapSize) -> int:
    """Refuses options that are wrong; returns the cores of each worker."""
    choice.check()
    check_map_size(map_size)
    if opening.device.startswith("cuda:"):
        raise UsageError(f"--device {opening.device}: Ray gives each worker its GPU; give --device cuda")
    return threads_for(1 if opening.threads is None else opening.threads)


def _absolute(path: Path) -> Path:
    """Returns a path that means the same in every process."""
    return path if is_remote(path) else path.absolute()


def _seen(videos: Sequence[FrameFolder]) -> list[Path]:
    """Returns files that every node must see: the first of the first video, and the last of the last."""
    return [video.film or video.frames[place] for video, place in ((videos[0], 0), (videos[-1], -1))]


def _size(cluster: Cluster, opening: Opening, cores: int, jobs: int | None) -> Size:
    """Returns how many workers there can be, and what each takes."""
    nodes = cluster.nodes()
    may_use_gpu = opening.device != "cpu" and opening.backend not in _ON_CPU_ONLY
    gpus = int(may_use_gpu and any(node.gpus for node in nodes))
    if opening.device == "cuda" and not gpus:
        raise BackendError("--device cuda: the cluster has no GPU that Ray knows of")
    fitting = workers_that_fit(cluster, cores, gpus)
    if not fitting:
        most = max((node.cores for node in nodes), default=0)
        raise BackendError(
            f"--threads {cores}: no node of the cluster has {counted(cores, 'CPU')}; the largest has {most:g}"
        )
    return Size(min(fitting, jobs or fitting), cores, gpus)


def _fit(cores: float, gpus: float, size: Size) -> bool:
    return cores >= size.cores and gpus >= size.gpus


def _announce(spec: ModelSpec, size: Size, workers: int, nodes: int) -> None:
    each = counted(size.cores, "core") + (" and a GPU" if size.gpus else "")
    where = f"{counted(workers, 'worker')} of {each}, {counted(nodes, 'node')}"
    tell(f"{spec.architecture} {spec.precision} on Ray: {where}")
    tell_if_untrained(spec)
