"""`salema-export`: a checkpoint in, a verified model folder out."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salema.export.options import EngineOptions, ExportOptions, Request
from salema.kernels.errors import installed
from salema.runtime.cli.options import takes_options, typed_options
from salema.runtime.cli.start import run_app
from salema.runtime.errors import SalemaError, UsageError, exit_on_error
from salema.runtime.telling import tell

if TYPE_CHECKING:
    from salema.export.exporter import Result
    from salema.export.serving.emit import Emitted

_WITH_FROM = {"from_", "emit", "engine", "json_", *(field.name for field in fields(EngineOptions))}
_WITH_INT8 = {"calib", "calib_frames", "float_layers", "sensitivity"}
_NOT_FOR_TENSORRT = {
    **dict.fromkeys(("onnxruntime", "openvino"), "TensorRT can't read that"),  # it has no unsigned activations
    "ncnn": "only ncnn's files are in INT8",
}
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
@takes_options
def export(
    context: typer.Context,
    *,
    request: Request,
    options: ExportOptions,
    engine: Annotated[
        str,
        typer.Option(
            help="Engine to build: auto (what is installed and can run here; TensorRT-RTX with --target), tensorrt,"
            " tensorrt-rtx, none."
        ),
    ] = "auto",
    engine_options: EngineOptions,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Export SalEMA, SalGAN or SalCLSTM as a single-step ONNX graph, checked against PyTorch, and build its engine."""
    with exit_on_error("salema-export", "use a smaller --imgsz or --batch"):
        from salema.export.cli_report import report
        from salema.export.engine.to_engine import ENGINES, build_chosen

        if engine not in ENGINES:
            raise UsageError(f"--engine {engine}: not one of {', '.join(ENGINES)}")
        if (request.weights is None) == (request.from_ is None):
            raise UsageError(
                "give either --weights FILE to export a checkpoint, or --from DIR to build the engine of an export"
            )
        if request.from_ is not None:
            _check_from(context, request.from_, engine, request.emit)
            if request.emit is not None:
                report(None, (), _emit(request.from_, request.emit, engine, engine_options), as_json=json_)
            else:
                report(None, build_chosen(request.from_, engine, engine_options, tell, required=True), as_json=json_)
        elif request.weights is not None:
            _check_int8(context, int8=request.int8)
            options = replace(options, precision=request.precision)
            if request.emit is not None:
                _export_and_emit(request, request.emit, options, engine, engine_options, as_json=json_)
            else:
                _export_and_build(request.weights, request.output, options, engine, engine_options, as_json=json_)


def _export_and_emit(
    request: Request, target: str, options: ExportOptions, engine: str, engine_options: EngineOptions, *, as_json: bool
) -> None:
    from salema.export.cli_report import report
    from salema.export.serving.emit import check_emit

    check_emit(target, engine, engine_options, options.batch, split=options.split)
    result = _export(str(request.weights), request.output, options)
    report(result, (), _emit(request.output, target, engine, engine_options), as_json=as_json)


def _emit(folder: Path, target: str, engine: str, options: EngineOptions) -> Emitted:
    from salema.export.serving.emit import emit

    return emit(folder, target, engine, options, tell)


def _export_and_build(
    weights: str, folder: Path, options: ExportOptions, engine: str, engine_options: EngineOptions, *, as_json: bool
) -> None:
    from salema.export.cli_report import report
    from salema.export.engine.to_engine import build_chosen, check_ready

    if options.precision == "int8" and options.for_ in _NOT_FOR_TENSORRT:
        engine = _no_engine(engine, options.for_, has_options=engine_options != EngineOptions())
    check_ready(folder, engine, engine_options, options.batch)
    result = _export(weights, folder, options)
    try:
        built = build_chosen(folder, engine, engine_options, tell)
    except SalemaError:
        report(result, (), as_json=as_json)
        raise
    report(result, built, as_json=as_json)


def _no_engine(engine: str, target: str, *, has_options: bool) -> str:
    """Returns `none`, as no engine can be built from this INT8 form; refuses an engine that was asked for."""
    why = _NOT_FOR_TENSORRT[target]
    if engine not in {"auto", "none"}:
        raise UsageError(f"--int8 --for {target} --engine {engine}: {why}; leave out --for {target}")
    if engine == "auto" and has_options:
        raise UsageError(
            f"--int8 --for {target}: {why}, but engine options were given; leave them out, or leave out --for {target}"
        )
    return "none"


def _check_int8(context: typer.Context, *, int8: bool) -> None:
    for name, option in typed_options(context).items():
        if name in _WITH_INT8 and not int8:
            raise UsageError(f"{option} goes with --int8; add that, or leave it out")


def _check_from(context: typer.Context, folder: Path, engine: str, emit: str | None) -> None:
    from salema.runtime.model_folder import MODEL_FILE, PART_FILES

    if engine == "none" and emit is None:
        raise UsageError("--from DIR --engine none leaves nothing to do; leave one of them out")
    if folder.is_file() and folder.name not in {MODEL_FILE, *PART_FILES}:
        raise UsageError(f"--from {folder}: not {MODEL_FILE} or the folder that holds it")
    for name, option in typed_options(context).items():
        if name not in _WITH_FROM:
            advice = "; for an engine it is --batch-profile" if name == "batch" else ""
            raise UsageError(f"{option}: the export in {folder} has settled that; leave it out{advice}")


def _export(weights: str, folder: Path, options: ExportOptions) -> Result:
    with installed("pip install 'salema[cpu,export]'"):
        from salema.export.exporter import export_model
    return export_model(weights, folder, options, tell)


def main() -> None:
    """Runs the command."""
    run_app(app, "salema-export")
