"""`salema-bench`: how fast exported models are, and how fast what people would use instead."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from salema.benchmarks.cli_options import refuse_before_command
from salema.runtime.cli.options import DeviceOption
from salema.runtime.cli.start import run_app
from salema.runtime.errors import UsageError, exit_on_error
from salema.runtime.telling import show, tell

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR[=BACKEND,...]",
            help="Folder that salema-export wrote [default: salema-model], and its backends, where not those of"
            " --backend; repeat it.",
            readable=False,
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="VIDEO", help="Frames to show, and a whole run of it by stage [default: a moving disc]."),
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="As salema-run takes it; several with commas [default: auto].")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PEER,...",
            help="What people would use instead: pytorch, pytorch-compile, pytorch-channels-last, pytorch-bf16,"
            " onnxruntime, openvino; on a GPU also pytorch-fp16, pytorch-cuda-graph, pytorch-fp16-cuda-graph, tensorrt,"
            " tensorrt-rtx. The first"
            " is the baseline.",
        ),
    ] = None,
    batch: Annotated[list[str] | None, typer.Option(metavar="N,...", help="Streams per step [default: 1].")] = None,
    duration: Annotated[float, typer.Option(metavar="SECONDS", help="For each case.")] = 10,
    device: DeviceOption = "auto",
    weights: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint the model was exported from, for peers; not needed for seeded ones, nor for nano."
        ),
    ] = None,
    json_: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the records, a line of JSON for each case.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw them.")] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Records of an earlier run: say what got slower, and exit with 1 if any."),
    ] = None,
) -> None:
    """Measure throughput and latency of exported models and of their peers, in turns, as ratios with their spread."""
    with exit_on_error("salema-bench", "use a smaller --batch"):
        if context.invoked_subcommand:
            refuse_before_command(context)
            return
        from salema.benchmarks.progress import TurnBar
        from salema.benchmarks.speed.bench import run_bench
        from salema.benchmarks.speed.cases import Plan
        from salema.benchmarks.speed.guard import check_baseline
        from salema.benchmarks.speed.records import read_records, write_records
        from salema.benchmarks.speed.report import details, table
        from salema.benchmarks.speed.report import plot as draw

        models = [_with_backends(path) for path in model or [Path("salema-model")]]
        plan = Plan(
            models=tuple(folder for folder, _ in models),
            own={place: names for place, (_, names) in enumerate(models) if names},
            backends=_listed(backend) or ("auto",),
            peers=_listed(compare),
            batches=_numbers(batch) or (1,),
            duration_s=duration,
            device=device,
            source=source,
            weights=weights,
        )
        before = read_records(against) if against else None
        if before is not None:
            check_baseline(before, plan)
        _check_outputs(json_, plot)
        records: list[dict[str, Any]] = []
        try:
            run_bench(plan, tell, TurnBar, records=records)
        finally:  # what was measured before an error or Ctrl-C is kept
            if records and json_ is not None:
                write_records(json_, records)
            if records:
                show(f"{table(records)}\n\n{details(records)}")
        if plot is not None:
            draw(records, plot)
        if before is not None:
            _report_changes(before, records)


@app.command()
def report(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Records that salema-bench wrote.")],
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw them too.")] = None,
) -> None:
    """Print the records of earlier runs as a table in Markdown; of the same case, the last one."""
    with exit_on_error("salema-bench"):
        from salema.benchmarks.speed.records import read_records
        from salema.benchmarks.speed.report import latest, table
        from salema.benchmarks.speed.report import plot as draw

        _check_outputs(None, plot)
        records = latest(record for file in files for record in read_records(file))
        show(table(records))
        if plot is not None:
            draw(records, plot)


@app.command()
def cost(
    weights: Annotated[str, typer.Option(help="Checkpoint as salema-export takes it, or seeded.")] = "seeded",
    backend: Annotated[str, typer.Option(help="As salema-run takes it, on the CPU.")] = "onnxruntime",
    for_: Annotated[str, typer.Option("--for", help="As salema-export takes it.")] = "onnxruntime",
    json_: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the record.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw it.")] = None,
) -> None:
    """Measure time and memory against frame size, batch and length of a video; about half an hour."""
    with exit_on_error("salema-bench"):
        from salema.benchmarks.peers.network import exporting
        from salema.benchmarks.speed.cost import Point, cost_record, cost_table, fit_lines, measure_cost, plot_cost
        from salema.benchmarks.speed.records import write_records

        _check_outputs(json_, plot)
        points: list[Point] = []
        try:
            with exporting(weights, for_) as export:
                for point in measure_cost(export, backend, tell):
                    points.append(point)  # noqa: PERF402 - each at once: the next may fail
        finally:  # what was measured before an error or Ctrl-C is kept
            lines = fit_lines(points)
            if points:
                show(cost_table(points, lines))
            if points and json_ is not None:
                write_records(json_, [cost_record(points, backend, weights)])
            if points and plot is not None:
                plot_cost(points, lines, plot)


def _check_outputs(json_file: Path | None, plot: Path | None) -> None:
    """Refuses, before any work, what could not be written after it."""
    from salema.benchmarks.plotting import check_plot
    from salema.runtime.files.whole_files import check_writable

    if json_file == Path("-"):
        raise UsageError("--json -: the table is on standard output; give a file")
    if json_file is not None:
        check_writable(json_file)
    if plot is not None:
        check_plot(plot)


def _with_backends(given: Path) -> tuple[Path, tuple[str, ...]]:
    """Splits `DIR=BACKEND,...`; a folder that exists is taken whole."""
    folder, _, names = str(given).rpartition("=")
    return (given, ()) if given.exists() or not folder else (Path(folder), _listed([names]))


def _listed(values: list[str] | None) -> tuple[str, ...]:
    return tuple(part.strip() for value in values or () for part in value.split(",") if part.strip())


def _numbers(values: list[str] | None) -> tuple[int, ...]:
    listed = _listed(values)
    for number in listed:
        if not number.isdecimal():
            raise UsageError(f"--batch {number}: give whole numbers, such as 1,2,4")
    return tuple(int(number) for number in listed)


def _report_changes(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> None:
    from salema.benchmarks.speed.guard import find_changes, in_one_only, other_machine

    differ = other_machine(before, now)
    if differ:
        tell(f"note: that file is of another machine ({differ}); ratios may differ for that reason")
    changes = find_changes(before, now)
    for note in in_one_only(before, now):
        tell(f"note: {note}")
    for change in changes:
        show(f"{change.verdict:<7} {change.case}: {change.measure} {change.before:.2f} then, {change.now:.2f} now")
    if any(change.verdict == "slower" for change in changes):
        raise SystemExit(1)


def main() -> None:
    """Runs the command."""
    run_app(app, "salema-bench")
