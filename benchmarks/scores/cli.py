"""`salema-eval`: scores of predicted maps, or of an exported model as it runs, by the published metrics."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from salema.benchmarks.cli_options import refuse_before_command
from salema.benchmarks.scores.freed_memory import keep_freed_memory
from salema.runtime.cli.options import typed_options
from salema.runtime.cli.start import run_app
from salema.runtime.errors import OutputError, UsageError, exit_on_error
from salema.runtime.telling import show, tell

if TYPE_CHECKING:
    from salema.benchmarks.maps.ground_truth import VideoTruth
    from salema.benchmarks.maps.predictions import MapSource

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
_PROGRAM = "salema-eval"
_MOST_SENTENCES = 20


@app.callback(invoke_without_command=True)
def evaluate(
    context: typer.Context,
    pred: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of predicted maps, or its URL (s3://).")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Or the folder that salema-export wrote: scored as it runs.", readable=False)
    ] = None,
    src: Annotated[str | None, typer.Option(metavar="DIR", help="With --model: the dataset's folder.")] = None,
    gt: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Folder of the ground truth, or its URL [default: --src].", show_default=False
        ),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="DHF1K, Hollywood-2, UCF-sports, or other.")] = None,
    protocol: Annotated[
        str, typer.Option(help="salema (the published table's), dhf1k (the benchmark's) or exact (nothing sampled).")
    ] = "salema",
    compare: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="A second folder of the same kind: differences, with an interval."),
    ] = None,
    start: Annotated[int | None, typer.Option(help="Least number of a video (DHF1K).")] = None,
    end: Annotated[int | None, typer.Option(help="Greatest number of a video (DHF1K).")] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="A[,B]", help="Which <weights>_predictions, where --pred holds several; B of --compare."),
    ] = None,
    naming: Annotated[
        str | None,
        typer.Option(help="Names of --pred: published (counted from 1), groundtruth [default: what fits more]."),
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Show the paper's rows beside it.")] = False,
    against_published: Annotated[
        bool, typer.Option("--against-published", help="Compare with SalEMA30's published scores (DHF1K 601 to 700).")
    ] = False,
    json_: Annotated[
        Path | None, typer.Option("--json", help="JSON file for everything; - for standard output.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="CSV file: a line for each video; - for standard output.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG file: scores per video.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first file that can't be read, and give no scores.")
    ] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Frames at a time [default: one for each core].")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is sampled.")] = 0,
    backend: Annotated[str, typer.Option(help="With --model: as for salema-run.")] = "auto",
    device: Annotated[str, typer.Option(help="With --model: as for salema-run.")] = "auto",
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="With --pred: score on a Ray cluster, as for salema-run [default: the one that runs here].",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Score saliency maps against where people looked: AUC-Judd, shuffled AUC, NSS, CC, SIM, KL and AUC-Borji."""
    with exit_on_error(_PROGRAM, "give fewer --jobs"), ExitStack() as opened:
        if context.invoked_subcommand is not None:
            refuse_before_command(context)
            return
        for name in ("backend", "device"):
            if pred is not None and name in typed_options(context):
                raise UsageError(f"--{name} is about --model; leave it out with --pred")
        from salema.benchmarks.maps.ground_truth import list_truth
        from salema.benchmarks.metrics.protocols import find_protocol
        from salema.benchmarks.scores.compared import predicted, running
        from salema.benchmarks.scores.published import check_published
        from salema.benchmarks.scores.report import STDOUT, Evaluation, notes, text_lines
        from salema.benchmarks.scores.scoring import draws_beyond, whole_videos
        from salema.benchmarks.scores.workers import workers_for

        at = _check(dataset, pred, model, src, gt, compare, weights, naming)
        if ray is not None:
            from salema.benchmarks.scores.ray_workers import cluster_workers, seen_by_all

            at = _Places(*seen_by_all(at.pred, at.compare, at.truth))
        if start is not None and end is not None and start > end:
            raise UsageError("--start is greater than --end: no video to score")
        _check_rows(dataset, protocol, published=published)
        chosen, write = find_protocol(protocol, dataset or ""), _outputs(json_, csv, plot)
        numbers = {"start": start, "end": end}
        truth = list_truth(dataset or "", at.truth, **numbers)
        is_part = (start, end) != (None, None) and draws_beyond(chosen, truth)
        everywhere = list_truth(dataset or "", at.truth) if is_part else truth
        options: dict[str, Any] = {"dataset": dataset, "truth": truth, **numbers}
        places = [place for place in (at.pred or model, at.compare) if place is not None]
        if at.pred is not None:
            sources = predicted(places, {**options, "naming": naming}, weights)
        else:
            sources = running(places, {**options, "source": at.source}, backend, device, opened)
        if against_published:
            check_published(dataset or "", protocol, whole_videos(sources, truth))
        how = {
            "protocol": chosen,
            "seed": seed,
            **workers_for([*places, at.truth], jobs),
            "everywhere": everywhere,
            "strict": strict,
        }
        if ray is not None:
            how |= cluster_workers(ray, jobs, [*places, at.truth], opened)
        models = _score(sources, truth, how)
        found = Evaluation(dataset or "", chosen, seed, models, published, against_published)
        try:  # before the files are written, which may fail
            show("\n".join(text_lines(found)), sys.stderr if STDOUT in {csv, json_} else None)
        finally:  # even if standard output is closed
            for note in notes(found):
                tell(f"note: {note}")
            write(found)
        _end(models[0].failed)


@app.command()
def pack(
    pred: Annotated[Path, typer.Option(help="Folder of predicted maps, in a folder for each video.", readable=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="ZIP file to write.")] = Path("submission.zip"),
    method: Annotated[str | None, typer.Option(help="Folder in the ZIP file [default: the file's name].")] = None,
    src: Annotated[
        Path | None, typer.Option(help="DHF1K's folder: frames are counted and named as there.", readable=False)
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Which <weights>_predictions, where --pred holds several.")
    ] = None,
    start: Annotated[int, typer.Option(help="Least number of a video.")] = 701,
    end: Annotated[int, typer.Option(help="Greatest number of a video.")] = 1000,
) -> None:
    """Check maps against what DHF1K's benchmark asks for, and pack them for submission; list every problem."""
    with exit_on_error(_PROGRAM):
        from salema.benchmarks.scores.submission import check_local, check_method, check_submission, pack_submission
        from salema.runtime.cli.frame_bar import FrameBar
        from salema.runtime.files.whole_files import check_writable
        from salema.runtime.wording import counted

        name = output.stem if method is None else method
        check_method(name)
        check_local({"--pred": pred, "--src": src, "--output": output})
        check_writable(output)
        with FrameBar(1) as bar:
            found = check_submission(pred, range(start, end + 1), source=src, weights=weights, progress=bar.advance)
        for note in found.notes:
            tell(f"note: {note}")
        if found.problems:
            for problem in found.problems:
                tell(f"{_PROGRAM}: {problem}")
            tell(f"{_PROGRAM}: {counted(len(found.problems), 'problem')}; nothing was packed")
            raise SystemExit(1)
        pack_submission(found, output, name)
        show(f"{counted(found.videos, 'video')}, {counted(len(found.files), 'map')} -> {output}")


class _Places(NamedTuple):
    pred: Path | None
    compare: Path | None
    truth: Path
    source: Path | None = None


def _check(
    dataset: str | None,
    pred: str | None,
    model: Path | None,
    src: str | None,
    gt: str | None,
    compare: str | None,
    weights: str | None,
    naming: str | None,
) -> _Places:
    """Refuses options that don't go together; returns the folders."""
    if dataset is None:
        raise UsageError("give --dataset DHF1K, Hollywood-2, UCF-sports or other")
    if (pred is None) == (model is None):
        raise UsageError("give either --pred DIR (maps on disk) or --model DIR (an exported model, with --src DIR)")
    if (model is None) != (src is None):
        raise UsageError("--model DIR takes its frames from --src DIR; give both, or --pred DIR and --gt DIR")
    if model is not None and (weights or naming):
        raise UsageError("--weights and --naming are about --pred; leave them out with --model")
    truth = gt or src
    if truth is None:
        raise UsageError("--pred DIR: give the folder of the ground truth with --gt DIR")
    from salema.runtime.files.remote_path import as_path, is_remote, was_url

    maps, second, source = (None if text is None else as_path(text) for text in (pred, compare, src))
    if model is not None and (was_url(model) or is_remote(source) or is_remote(second)):
        raise UsageError("--model: it runs on this machine's files; only --pred, its --compare and --gt may be URLs")
    return _Places(maps, second, as_path(truth), source)


def _check_rows(dataset: str | None, protocol: str, *, published: bool) -> None:
    if published and (dataset, protocol) != ("DHF1K", "salema"):
        raise UsageError("--published: the paper's rows are of --dataset DHF1K with --protocol salema; leave it out")


def _outputs(json_: Path | None, csv: Path | None, plot: Path | None) -> Any:
    from salema.benchmarks.scores.report import STDOUT, write_csv, write_json
    from salema.runtime.files.whole_files import check_writable

    writers: list[tuple[Path, Any]] = [
        (path, write) for path, write in ((json_, write_json), (csv, write_csv)) if path is not None
    ]
    if plot is not None:
        from salema.benchmarks.scores.plot import write_plot

        writers.append((plot, write_plot))
    if len({path.resolve() for path, _ in writers}) < len(writers):
        raise UsageError("--json, --csv and --plot: two of them name the same file; give each its own")
    for path, _ in writers:
        if path != STDOUT:
            check_writable(path)
    if plot is not None:
        from salema.benchmarks.plotting import check_plot

        check_plot(plot)

    def write_all(found: Any) -> None:
        failures = []
        for path, write in writers:
            try:
                write(path, found)
            except OutputError as error:  # noqa: PERF203 - the others are written all the same
                failures.append(str(error))
        if failures:
            raise OutputError("; ".join(failures))

    return write_all


def _score(sources: list[MapSource], truth: dict[str, VideoTruth], options: dict[str, Any]) -> Any:
    import cv2

    from salema.benchmarks.scores.scoring import frame_count, score_dataset
    from salema.runtime.cli.frame_bar import FrameBar

    cv2.setNumThreads(1)  # frames are done side by side; threads that wait for parts of one take half a core
    with FrameBar(1, frame_count(sources, truth)) as bar:
        return score_dataset(sources, truth, **options, progress=bar.advance)


def _end(failed: dict[str, str]) -> None:
    """Says what could not be read, and ends the command accordingly."""
    if not failed:
        return
    sentences = list(dict.fromkeys(failed.values()))  # two frames may have one file
    for sentence in sentences[:_MOST_SENTENCES]:
        tell(f"{_PROGRAM}: {sentence}")
    if len(sentences) > _MOST_SENTENCES:
        tell(f"{_PROGRAM}: and {len(sentences) - _MOST_SENTENCES} more; --json lists all")
    files = "1 file is at fault, and what it belongs" if len(sentences) == 1 else ""
    files = files or f"{len(sentences)} files are at fault, and what they belong"
    tell(f"{_PROGRAM}: {files} to is left out; the rest is scored")
    raise SystemExit(1)


def main() -> None:
    """Runs the command."""
    # Before NumPy is imported: its threads would have nothing to do, and keep `workers.can_fork` from being true.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    keep_freed_memory()
    run_app(app, _PROGRAM, {"--ray": "auto"})
