"""`salema-run`: a video in, a saliency video and maps out."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salema.runtime.errors import INTERRUPTED_EXIT_CODE, UsageError, exit_on_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from salema.runtime.dataset_run import DatasetSummary
    from salema.runtime.pipeline import Summary

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def run(
    source: Annotated[
        Path | None, typer.Argument(help="Video file; or give --dataset.", show_default=False, readable=False)
    ] = None,
    model: Annotated[Path, typer.Option(help="Folder that salema-export wrote.", readable=False)] = Path(
        "salema-model"
    ),
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="MP4 to write [default: SOURCE's name + _saliency.mp4, here].")
    ] = None,
    maps: Annotated[Path | None, typer.Option(help="Folder for the maps as PNG at network size.")] = None,
    video: Annotated[bool, typer.Option("--video/--no-video", help="Write the MP4.")] = True,
    view: Annotated[str, typer.Option(help="What the MP4 shows: overlay, map or side-by-side.")] = "overlay",
    backend: Annotated[
        str, typer.Option(help="auto, tensorrt, tensorrt-rtx, onnxruntime or onnxruntime-tensorrt.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N for GPU number N.")] = "auto",
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
    src: Annotated[Path | None, typer.Option(help="With --dataset: its folder.", readable=False)] = None,
    dst: Annotated[Path | None, typer.Option(help="With --dataset: folder for the predictions.")] = None,
    start: Annotated[int | None, typer.Option(help="With --dataset DHF1K: least number of a video.")] = None,
    end: Annotated[int | None, typer.Option(help="With --dataset DHF1K: greatest number of a video.")] = None,
    naming: Annotated[
        str, typer.Option(help="With --dataset: published (counted from 1) or groundtruth (the frames' names).")
    ] = "published",
    resume: Annotated[bool, typer.Option("--resume", help="With --dataset: skip finished videos.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="With --dataset: videos at a time.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Lay the saliency of a video over it, with its sound kept, and save the maps on request; or run a dataset."""
    with exit_on_error("salema-run"):
        if (source is None) == (dataset is None):
            raise UsageError("give either a video file, or --dataset NAME --src DIR --dst DIR")
        if dataset is not None:
            if src is None or dst is None or output is not None or maps is not None:
                raise UsageError(f"--dataset {dataset}: give --src DIR and --dst DIR, and neither -o nor --maps")
            options = {"naming": naming, "start": start, "end": end}
            opening = {"backend": backend, "device": device, "graphs": cuda_graph}
            _run_dataset(dataset, src, dst, model, options, opening, jobs=jobs, resume=resume, as_json=json_)
            return
        assert source is not None
        from salema.runtime import load
        from salema.runtime.pipeline import process_video
        from salema.runtime.postprocess import VIEWS
        from salema.runtime.session import warn_untrained

        if view not in VIEWS:
            raise UsageError(f"--view {view}: not one of {', '.join(VIEWS)}")
        if not video and (output is not None or maps is None):
            raise UsageError("--no-video leaves nothing to write; give --maps DIR, and no -o")
        if output is None and video:
            output = Path(f"{source.stem}_saliency.mp4")
        if output is not None and output.suffix.lower() != ".mp4":
            raise UsageError(f"-o {output}: not an .mp4 name; the video is written as MP4")
        with load(model, backend=backend, device=device, graphs=cuda_graph) as stream:
            print(f"{stream.spec.architecture} {stream.spec.precision}, {stream.description}", file=sys.stderr)
            warn_untrained(stream.spec)
            chosen = stream.description
            summary = process_video(stream, source, output, maps, view, _progress)
        _report(summary, output, maps, chosen, as_json=json_)


def _run_dataset(
    dataset: str,
    source: Path,
    target: Path,
    model: Path,
    options: dict[str, Any],
    opening: dict[str, Any],
    *,
    jobs: int,
    resume: bool,
    as_json: bool,
) -> None:
    from tqdm import tqdm

    from salema.runtime import load
    from salema.runtime.dataset_run import run_dataset
    from salema.runtime.datasets import check_dataset, list_videos
    from salema.runtime.pipeline import stop_requested
    from salema.runtime.session import warn_untrained

    check_dataset(dataset, **options)
    with load(model, **opening, streams=1) as stream:
        spec = stream.spec
        print(f"{spec.architecture} {spec.precision}, {stream.description}", file=sys.stderr)
        warn_untrained(spec)
    videos = list_videos(dataset, source, target, spec.weights, **options)
    frames = sum(len(video.frames) for video in videos)
    with stop_requested() as stop, tqdm(total=frames, unit=" frames", disable=None) as bar:
        finished = 0

        def progress(more_videos: int, more_frames: int) -> None:
            nonlocal finished
            finished += more_videos
            bar.update(more_frames)
            bar.set_postfix_str(f"{finished} of {len(videos)} videos", refresh=False)

        summary = run_dataset(
            videos,
            lambda: load(model, **opening, streams=1),
            jobs=jobs,
            resume=resume,
            stop=stop,
            progress=progress,
        )
    _report_dataset(summary, len(videos), target, as_json=as_json)


def _report_dataset(summary: DatasetSummary, count: int, target: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**asdict(summary), "target": str(target)}))
    else:
        skipped = f", {summary.skipped} were finished before" if summary.skipped else ""
        print(f"{summary.videos} of {count} videos, {summary.frames} maps -> {target}{skipped}")
    for name, error in summary.failed.items():
        print(f"salema-run: {name}: {error}", file=sys.stderr)
    if summary.interrupted:
        print("salema-run: interrupted; go on with --resume", file=sys.stderr)
        raise SystemExit(INTERRUPTED_EXIT_CODE)
    if summary.failed:
        print(f"salema-run: {len(summary.failed)} of {count} videos failed; the others are done", file=sys.stderr)
        raise SystemExit(1)


def _progress(frames: Iterable[Any], total: int | None) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(frames, total=total, unit=" frames", disable=None)  # None: off where stderr is no terminal


def _report(summary: Summary, output: Path | None, maps: Path | None, backend: str, *, as_json: bool) -> None:
    if as_json:
        where = {"video": str(output) if output else None, "maps": str(maps) if maps else None}
        print(json.dumps({"backend": backend, **asdict(summary), **where}))
    else:
        stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in summary.stage_ms.items())
        where_text = " and ".join(str(path) for path in (output, maps) if path)
        print(
            f"{summary.frames} frames in {summary.seconds:.1f} s, {summary.fps:.1f} fps"
            f" (ms per frame: {stages}) -> {where_text}"
        )
    for note in summary.notes:
        print(f"note: {note}", file=sys.stderr)
    if summary.error:
        print(f"salema-run: {summary.error}; what came before is written", file=sys.stderr)
        raise SystemExit(1)
    if summary.interrupted:
        of = f" of {summary.frames_expected}" if summary.frames_expected else ""
        print(f"salema-run: interrupted after {summary.frames}{of} frames; these are written", file=sys.stderr)
        raise SystemExit(INTERRUPTED_EXIT_CODE)


def main() -> None:
    """Runs the command."""
    app()
