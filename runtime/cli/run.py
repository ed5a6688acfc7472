"""`salema-run`: makes saliency videos, maps and numbers from videos, cameras and datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salema.runtime.cli.options import BackendOption, DeviceOption, refuse_others
from salema.runtime.cli.start import run_app, run_process
from salema.runtime.errors import UsageError, exit_on_error

# Options that go with --dataset, and those that need it.
_WITH_DATASET = {
    *("model", "backend", "device", "cuda_graph", "dataset", "src", "dst", "start", "end", "naming", "resume"),
    *("threads", "retune", "map_size", "jobs", "streams", "max_wait_ms", "strict", "json_", "ray"),
}
_DATASET_ONLY = {"src", "dst", "start", "end", "naming", "ray"}

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def run(
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Videos, folders of frames or of videos, patterns, .txt lists of sources, camera numbers, URLs, a"
            " GStreamer pipeline (in quotes), or - for standard input; or give --dataset.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[Path, typer.Option(help="Folder that salema-export wrote.", readable=False)] = Path(
        "salema-model"
    ),
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="MP4 to write, or a folder for them [default: <source>_saliency.mp4, here]."
        ),
    ] = None,
    maps: Annotated[Path | None, typer.Option(help="Folder for the maps as PNG.")] = None,
    map_bits: Annotated[int, typer.Option(help="Bits of the PNG maps: 8 or 16.")] = 8,
    map_size: Annotated[
        str,
        typer.Option(help="Size of the PNG maps, also of a dataset's: network, or source (resized as MATLAB does)."),
    ] = "network",
    npz: Annotated[Path | None, typer.Option(help="NPZ file for the raw maps, float32, and their times.")] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="CSV file, or - for standard output: times and measures, a line for each frame."),
    ] = None,
    video: Annotated[bool, typer.Option("--video/--no-video", help="Write the MP4.")] = True,
    show: Annotated[bool, typer.Option("--show", help="Show the picture in a window; q closes it.")] = False,
    split_minutes: Annotated[
        float | None,
        typer.Option(help="Begin new files (MP4, NPZ, CSV) after this many minutes of video.", show_default=False),
    ] = None,
    view: Annotated[str, typer.Option(help="What the picture shows: overlay, map or side-by-side.")] = "overlay",
    normalise: Annotated[
        str, typer.Option(help="A map's range: frame (its own, as published), running (the last second's) or none.")
    ] = "frame",
    colormap: Annotated[str, typer.Option(help="Colours of the overlay: jet, turbo, inferno, ...")] = "jet",
    opacity: Annotated[float, typer.Option(help="Opacity of the overlay's colours, 0 to 1.")] = 0.5,
    start_time: Annotated[float, typer.Option(help="Seconds to leave out at the start.")] = 0,
    duration: Annotated[float | None, typer.Option(help="Seconds to run.", show_default=False)] = None,
    max_frames: Annotated[
        int | None, typer.Option(help="Greatest number of frames to run.", show_default=False)
    ] = None,
    vid_stride: Annotated[int, typer.Option(help="Run every N-th frame.")] = 1,
    loop: Annotated[int, typer.Option(help="How often to play each file; 0 until interrupted.")] = 1,
    fps: Annotated[float, typer.Option(help="Frames per second of folders of images.")] = 25,
    every_frame: Annotated[
        bool,
        typer.Option("--every-frame", help="Run every frame of live sources, not only the newest ones."),
    ] = False,
    live: Annotated[
        bool,
        typer.Option("--live", help="Treat URLs without a length as live; RTSP, HLS and the like always are."),
    ] = False,
    reconnects: Annotated[int, typer.Option(help="Attempts to connect again after each loss of a live source.")] = 10,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Stop at the first fault: a missing source, or a damaged packet or image."),
    ] = False,
    deinterlace: Annotated[
        bool, typer.Option("--deinterlace", help="Deinterlace interlaced pictures (FFmpeg's bwdif).")
    ] = False,
    reset_on_cut: Annotated[bool, typer.Option("--reset-on-cut", help="Empty the memory where a shot begins.")] = False,
    time_aware: Annotated[
        bool, typer.Option("--time-aware", help="Weight frames by the time since the last one: memory in seconds.")
    ] = False,
    reference_fps: Annotated[
        float | None,
        typer.Option(
            help="With --time-aware: frame rate at which the model's coefficient applies [default: the model's]."
        ),
    ] = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", help="Threads of each network on the CPU [default: the cores, shared by --jobs]."),
    ] = None,
    retune: Annotated[
        bool, typer.Option("--retune", help="Try again which backend is the fastest on this CPU (--backend auto).")
    ] = False,
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph/--no-cuda-graph", help="Replay each step as a CUDA graph (TensorRT).")
    ] = True,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Maps for a whole dataset instead: DHF1K, Hollywood-2, UCF-sports, or other (any folder of"
            " folders of images)."
        ),
    ] = None,
    src: Annotated[
        str | None, typer.Option(metavar="DIR", help="With --dataset: its folder, or a URL (s3://).")
    ] = None,
    dst: Annotated[
        str | None, typer.Option(metavar="DIR", help="With --dataset: folder or URL for the predictions.")
    ] = None,
    start: Annotated[int | None, typer.Option(help="With --dataset DHF1K: least number of a video.")] = None,
    end: Annotated[int | None, typer.Option(help="With --dataset DHF1K: greatest number of a video.")] = None,
    naming: Annotated[
        str, typer.Option(help="With --dataset: published (counted from 1) or groundtruth (the frames' names).")
    ] = "published",
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Skip videos that this model has finished; live sources are run again."),
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="With --dataset: run on a Ray cluster: HOST:PORT, or this machine's cores (local) [default: the one"
            " that runs here, or RAY_ADDRESS].",
            show_default=False,
        ),
    ] = None,
    recover: Annotated[
        Path | None,
        typer.Option(
            help="Run nothing; recover what killed runs have left in this folder and its subfolders.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Videos at a time [default: 1; cameras and streams all at once].")
    ] = None,
    streams: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Videos at a time on one model, in one batch (of a model exported with --batch dynamic).",
            show_default=False,
        ),
    ] = None,
    max_wait_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="With --streams: how long a frame waits for other videos' [default: 20]."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print each summary as a line of JSON.")] = False,
) -> None:
    """Lay the saliency of videos over them, with their sound kept, and save maps and numbers; or run a dataset."""
    with exit_on_error("salema-run", "give fewer --jobs or --streams, or a --model exported with a smaller --imgsz"):
        if recover is not None:
            refuse_others(context, {"recover"}, f"not for --recover {recover}, which runs nothing")
            if sources:
                raise UsageError(f"--recover {recover}: give no sources with it; nothing is run")
            from salema.runtime.cli.run_modes import recover_outputs

            recover_outputs(recover)
            return
        if bool(sources) == (dataset is not None):
            raise UsageError("give either sources (a video file, say), or --dataset NAME --src DIR --dst DIR")
        from salema.runtime.batching.stream_batch import USUAL_WAIT_MS
        from salema.runtime.cli.opening import Opening
        from salema.runtime.run.videos import check_streams, usual_jobs

        if retune and backend != "auto":
            raise UsageError(f"--retune --backend {backend}: only auto tries backends; leave one of them out")
        check_streams(streams, max_wait_ms, jobs=jobs, show=show, ray=ray)
        wait_ms = None if streams is None else USUAL_WAIT_MS if max_wait_ms is None else max_wait_ms
        batch = streams or (None if dataset is None else 1)
        opening = Opening(model, backend, device, cuda_graph, batch, threads, retune, wait_ms)
        if dataset is not None:
            refuse_others(context, _WITH_DATASET, f"not for --dataset {dataset}")
            if src is None or dst is None:
                raise UsageError(f"--dataset {dataset}: give --src DIR and --dst DIR")
            from salema.runtime.cli.run_modes import DatasetRun, run_over_dataset
            from salema.runtime.files.remote_path import as_path

            asked = DatasetRun(
                *(dataset, as_path(src), as_path(dst), naming, start, end),
                resume=resume,
                map_size=map_size,  # type: ignore[arg-type] # it checks that
                strict=strict,
                as_json=json_,
            )
            if ray is not None:
                from salema.runtime.cli.ray_mode import run_over_cluster

                run_over_cluster(asked, opening, ray, jobs)
            else:
                run_over_dataset(asked, opening, streams or jobs or 1)
            return
        refuse_others(context, {*context.params} - _DATASET_ONLY, "for --dataset only")
        from salema.runtime.cli.run_modes import run_over_sources
        from salema.runtime.output.outputs import STDOUT, plan_outputs
        from salema.runtime.postprocess import Look
        from salema.runtime.run.stages import RunOptions
        from salema.runtime.sources.selection import Selection
        from salema.runtime.sources.source import find_sources

        look = Look(view, normalise, colormap, opacity)  # type: ignore[arg-type] # it checks them
        of_time = (start_time, duration, vid_stride, max_frames, loop, fps)
        selection = Selection(*of_time, every_frame, reconnects, strict, live, deinterlace)
        behaviour = RunOptions(look, reset_on_cut, time_aware, reference_fps)
        named = find_sources(sources or [], strict=strict)
        outputs = plan_outputs(
            named,
            output=output,
            video=video,
            maps=maps,
            map_bits=map_bits,
            map_size=map_size,  # type: ignore[arg-type] # it checks them
            npz=npz,
            csv=csv,
            show=show,
            split_minutes=split_minutes,
        )
        if csv == STDOUT and json_:
            raise UsageError("--csv - and --json both take standard output; give the CSV a file")
        how_many = streams or jobs or usual_jobs(named, live=live)
        planned = list(zip(named, outputs, strict=True))
        run_over_sources(
            *(planned, selection, behaviour, opening), jobs=how_many, strict=strict, as_json=json_, resume=resume
        )


def main() -> None:
    """Runs the command."""
    run_app(app, "salema-run", {"--ray": "auto"})


def main_of_process() -> None:
    """Runs the command; see `run_process`."""
    run_process(main)
