"""`salema-export`: a checkpoint in, a verified model folder out."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salema.runtime.errors import MissingDependencyError, UsageError, exit_on_error, reason

if TYPE_CHECKING:
    from salema.export.exporter import Result

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def export(
    weights: Annotated[
        str,
        typer.Option(
            help="Checkpoint (.pt, .safetensors, SalGAN's .npz), URL, or 'seeded' for untrained weights"
            " ('seeded:8': an eighth of the channels).",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("salema-model"),
    fp32: Annotated[bool, typer.Option("--fp32", help="Weights and compute in FP32 [the default].")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", "--half", help="Weights and compute in FP16.")] = False,
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
    imgsz: Annotated[
        tuple[int, int], typer.Option(metavar="HEIGHT WIDTH", help="Size of the network, multiples of 16.")
    ] = (
        192,
        256,
    ),
    batch: Annotated[str, typer.Option(help="Independent streams per step, or 'dynamic'.")] = "1",
    save_weights: Annotated[
        Path | None, typer.Option(help="Also write the weights and their architecture as .safetensors.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Export SalEMA, SalGAN or SalCLSTM as a single-step ONNX graph, checked against PyTorch."""
    with exit_on_error("salema-export"):
        if fp32 and fp16:
            raise UsageError("--fp32 --fp16: give one of them")
        if batch != "dynamic" and not batch.isdecimal():
            raise UsageError(f"--batch {batch}: give 1 or more, or 'dynamic'")
        try:
            from salema.export.exporter import Options, export_model
        except ImportError as error:
            if isinstance(error, MissingDependencyError):
                raise
            raise MissingDependencyError(
                f"{reason(error)}; install it with: pip install 'salema[cpu,export]'"
            ) from error
        result = export_model(
            Options(
                weights=weights,
                folder=output,
                precision="fp16" if fp16 else "fp32",
                arch=arch,
                ema_locs=tuple(ema_loc or ()),
                residual=residual,
                alpha=alpha,
                alpha_sigmoid=alpha_sigmoid,
                imgsz_hw=imgsz,
                batch=None if batch == "dynamic" else int(batch),
                save_weights=save_weights,
            ),
            lambda line: print(line, file=sys.stderr),
        )
        _report(result, as_json=json_)


def _report(result: Result, *, as_json: bool) -> None:
    spec, report = result.spec, result.report
    if as_json:
        record = {"path": str(result.path), "size_bytes": result.size_bytes}
        print(json.dumps({**record, "spec": asdict(spec), "check": asdict(report)}))
        return
    coefficient = "none" if spec.coefficient is None else f"{spec.coefficient:.6g}, {spec.coefficient_source}"
    states = ", ".join(f"{state.name} {'x'.join(map(str, state.shape_chw))}" for state in spec.states) or "none"
    rows = {
        "model": f"{result.path} ({result.size_bytes / 1e6:.1f} MB)",
        "architecture": f"{spec.architecture}, {result.architecture_source}",
        "frame": f"{spec.batch or 'N'}x{spec.height}x{spec.width}x3 uint8 BGR",
        "states": f"{states} (float32 per stream)" if spec.states else states,
        "coefficient": coefficient,
        "precision": spec.precision,
        "map difference": f"max {report.map_max:.2g}, mean {report.map_mean:.2g} (at most {report.tolerance:g})",
        "state difference": f"relative {report.state_error:.2g} (at most {report.tolerance:g})",
        "least CC": f"{report.cc:.6f} over {report.frames} frames with a reset",
        "control": f"noise differs by {report.control_max:.2g}",
    }
    for name, value in rows.items():
        print(f"{name:<17} {value}")


def main() -> None:
    """Runs the command."""
    app()
