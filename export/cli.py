"""`salema-export`: a checkpoint in, a verified model folder out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salema.runtime.cli.options import typed_options
from salema.runtime.cli.start import run_app
from salema.runtime.errors import MissingDependencyError, SalemaError, UsageError, exit_on_error, reason
from salema.runtime.telling import tell

if TYPE_CHECKING:
    from salema.export.exporter import Result

# What goes with --from; everything else was settled by the export.
_WITH_FROM = {
    *("from_", "engine", "workspace", "timing_cache", "optimization_level", "target", "batch_profile", "json_"),
    *("version_compatible", "hardware_compatible"),
}

_NOT_FOR_TENSORRT = {
    **dict.fromkeys(("onnxruntime", "openvino"), "TensorRT can't read that"),  # it takes no unsigned activations
    "ncnn": "only ncnn's files are in INT8",
}
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def export(
    context: typer.Context,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint (.pt, .safetensors, SalGAN's .npz), URL, or 'seeded' for untrained weights"
            " ('seeded:8': an eighth of the channels). This or --from must be given.",
            show_default=False,
        ),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Exported folder to build an engine in, instead of --weights; with it go --engine and what follows.",
            readable=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("salema-model"),
    fp32: Annotated[bool, typer.Option("--fp32", help="Weights and compute in FP32 [the default].")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", "--half", help="Weights and compute in FP16.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Convolutions in INT8; with --calib.")] = False,
    calib: Annotated[
        str | None, typer.Option(metavar="VIDEO|FOLDER", help="INT8: frames to calibrate and check on, like yours.")
    ] = None,
    calib_frames: Annotated[int, typer.Option(metavar="N", help="INT8: how many frames to calibrate on.")] = 64,
    float_layer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="INT8: layer to leave in float, such as salgan.60; repeat it for several."),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="INT8: print what each layer costs where it alone is INT8.")
    ] = False,
    arch: Annotated[
        str, typer.Option(help="auto, salgan, salema, salclstm30 or salclstm56; auto reads the checkpoint.")
    ] = "auto",
    ema_loc: Annotated[
        list[int] | None,
        typer.Option(
            metavar="LAYER",
            help="Layer whose output is averaged, 0 to 61 [default: 30]; give it twice for a double EMA.",
        ),
    ] = None,
    residual: Annotated[
        bool | None, typer.Option("--residual/--no-residual", help="Add what entered that layer to the state.")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Weight of the new frame [default: 0.1].")] = None,
    alpha_sigmoid: Annotated[
        bool, typer.Option("--alpha-sigmoid", help="Put alpha through a sigmoid, as the published code does.")
    ] = False,
    reference_fps: Annotated[
        float | None,
        typer.Option(
            metavar="FPS",
            help="Frames per second the weights were trained at, for salema-run --time-aware [default: 30, DHF1K's].",
        ),
    ] = None,
    plain_recurrence: Annotated[
        bool,
        typer.Option(
            "--plain-recurrence",
            help="In the encoder, average by the formula alone; the published code's ReLUs there work in place.",
        ),
    ] = False,
    imgsz: Annotated[
        tuple[int, int],
        typer.Option(
            metavar="HEIGHT WIDTH", help="Size of the network, multiples of 16 [default: 192 256].", show_default=False
        ),
    ] = (
        192,
        256,
    ),
    batch: Annotated[str, typer.Option(help="Independent streams per step, or 'dynamic'.")] = "1",
    split: Annotated[
        bool, typer.Option("--split", help="Write encoder and decoder apart, with our EMA kernel between them.")
    ] = False,
    for_: Annotated[
        str,
        typer.Option(
            "--for",
            help="What will run the graph, which is then rewritten to suit: any, onnxruntime, openvino, tensorrt,"
            " ncnn (its own files beside the ONNX graph).",
        ),
    ] = "any",
    rewrite: Annotated[
        bool,
        typer.Option("--rewrite/--no-rewrite", help="Rewrite the graph where it pays; the result stays the same."),
    ] = True,
    mean_channel: Annotated[
        bool,
        typer.Option(
            "--mean-channel", help="Take the mean off in the first convolution, as a fourth channel: exact, any target."
        ),
    ] = False,
    save_weights: Annotated[
        Path | None, typer.Option(help="Also write the weights and their architecture as .safetensors.")
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="Engine to build: auto (what is installed and can run here; TensorRT-RTX with --target), tensorrt,"
            " tensorrt-rtx, none."
        ),
    ] = "auto",
    workspace: Annotated[float | None, typer.Option(metavar="GIB", help="Most scratch memory while building.")] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="File of timings, made if missing, that quickens later builds (TensorRT).")
    ] = None,
    optimization_level: Annotated[
        int | None, typer.Option(help="0 to 5: how long the builder searches (TensorRT) [default: its own, 3].")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SM",
            help="GPU to build for: sm75, sm80, sm86, sm89, sm120 or sm121; repeat it for several (TensorRT-RTX)"
            " [default: this one].",
        ),
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Run in later versions too (TensorRT).")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Run on every GPU from Ampere on (TensorRT).")
    ] = False,
    batch_profile: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            metavar="LEAST BEST MOST", help="Streams per step of an engine with --batch dynamic [default: 1 1 8]."
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Export SalEMA, SalGAN or SalCLSTM as a single-step ONNX graph, checked against PyTorch, and build its engine."""
    with exit_on_error("salema-export", "use a smaller --imgsz or --batch"):
        from salema.export.cli_report import report
        from salema.export.engine.builder import EngineOptions
        from salema.export.engine.to_engine import ENGINES, build_chosen, check_ready

        if engine not in ENGINES:
            raise UsageError(f"--engine {engine}: not one of {', '.join(ENGINES)}")
        _check_source(context, weights, from_, engine)
        engine_options = EngineOptions(
            workspace_gib=workspace,
            timing_cache=timing_cache,
            optimization_level=optimization_level,
            targets=tuple(dict.fromkeys(name.lower() for name in target or ())),
            version_compatible=version_compatible,
            hardware_compatible=hardware_compatible,
            batch_profile=batch_profile,
        )
        if from_ is not None:
            report(None, build_chosen(from_, engine, engine_options, tell, required=True), as_json=json_)
            return
        precision = _precision(fp32=fp32, fp16=fp16, int8=int8)
        _check_int8(context, int8=int8)
        if batch != "dynamic" and not batch.isdecimal():
            raise UsageError(f"--batch {batch}: give 1 or more, or 'dynamic'")
        if int8 and for_ in _NOT_FOR_TENSORRT:
            engine = _no_engine(engine, for_, has_options=engine_options != EngineOptions())
        streams = None if batch == "dynamic" else int(batch)
        check_ready(output, engine, engine_options, streams)
        result = _export(
            weights=weights,
            folder=output,
            precision=precision,
            arch=arch,
            ema_locs=tuple(ema_loc or ()),
            residual=residual,
            alpha=alpha,
            alpha_sigmoid=alpha_sigmoid,
            plain_recurrence=plain_recurrence,
            reference_fps=reference_fps,
            imgsz_hw=imgsz,
            batch=streams,
            split=split,
            for_=for_,
            rewrite=rewrite,
            mean_channel=mean_channel,
            save_weights=save_weights,
            calib=calib,
            calib_frames=calib_frames,
            float_layers=tuple(float_layer or ()),
            sensitivity=sensitivity,
        )
        try:
            built = build_chosen(output, engine, engine_options, tell)
        except SalemaError:
            report(result, (), as_json=json_)
            raise
        report(result, built, as_json=json_)


def _precision(**asked: bool) -> str:
    given = [name for name, is_given in asked.items() if is_given]
    if len(given) > 1:
        raise UsageError(f"{' '.join(f'--{name}' for name in given)}: give one of them")
    return given[0] if given else "fp32"


def _no_engine(engine: str, target: str, *, has_options: bool) -> str:
    """Of what would be no INT8 engine: what is asked for is refused, and `auto` builds none."""
    why = _NOT_FOR_TENSORRT[target]
    if engine not in {"auto", "none"}:
        raise UsageError(f"--int8 --for {target} --engine {engine}: {why}; leave out --for {target}")
    if engine == "auto" and has_options:
        raise UsageError(
            f"--int8 --for {target}: {why}, and options of an engine were given; leave out these, or --for {target}"
        )
    return "none"


def _check_int8(context: typer.Context, *, int8: bool) -> None:
    for name in ("calib", "calib_frames", "float_layer", "sensitivity"):
        source = context.get_parameter_source(name)
        if not int8 and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"--{name.replace('_', '-')} goes with --int8; add that, or leave it out")


def _check_source(context: typer.Context, weights: str | None, folder: Path | None, engine: str) -> None:
    from salema.runtime.model_folder import MODEL_FILE, PART_FILES

    if (weights is None) == (folder is None):
        raise UsageError(
            "give either --weights FILE to export a checkpoint, or --from DIR to build the engine of an export"
        )
    if folder is None:
        return
    if engine == "none":
        raise UsageError("--from DIR --engine none leaves nothing to do; leave one of them out")
    if folder.is_file() and folder.name not in {MODEL_FILE, *PART_FILES}:
        raise UsageError(f"--from {folder}: not {MODEL_FILE} or the folder that holds it")
    for name, option in typed_options(context).items():
        if name not in _WITH_FROM:
            advice = "; for an engine it is --batch-profile" if name == "batch" else ""
            raise UsageError(f"{option}: the export in {folder} has settled that; leave it out{advice}")


def _export(**options: Any) -> Result:
    try:
        from salema.export.exporter import Options, export_model
    except ImportError as error:
        if isinstance(error, MissingDependencyError):
            raise
        raise MissingDependencyError(f"{reason(error)}; install it with: pip install 'salema[cpu,export]'") from error
    return export_model(Options(**options), tell)


def main() -> None:
    """Runs the command."""
    run_app(app, "salema-export")
