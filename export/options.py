"""Every option of `salema-export`, declared once: the command and the functions take these same classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from salema.runtime.errors import UsageError
from salema.runtime.spec import PRECISIONS


def _streams(text: object) -> int | None:
    if text == "dynamic":
        return None
    if not str(text).isdecimal():
        raise typer.BadParameter(f"{text!r} is not a whole number or 'dynamic'")
    return int(str(text))


def _lower_once(names: Any) -> tuple[str, ...]:  # on Python 3.10, Typer fails on a callback's tuple[str, ...]
    return tuple(dict.fromkeys(name.lower() for name in names))


@dataclass(frozen=True)
class Request:
    """What to export and where, or the export to build an engine from; at most one of the three flags is given."""

    weights: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint (.pt, .safetensors, SalGAN's .npz), URL, 'nano' for the trained weights that ship (a file"
            " called so is ./nano), or 'seeded' for untrained ones ('seeded:8': an eighth of the channels). This or"
            " --from must be given.",
            show_default=False,
        ),
    ] = None
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Exported folder to build an engine in, instead of --weights; only --emit, --engine and the options"
            " after that go with it.",
            readable=False,
        ),
    ] = None
    emit: Annotated[
        str | None,
        typer.Option(
            metavar="SERVER",
            help="Also write, beside a model with --batch dynamic, what a server takes: triton (a model repository),"
            " deepstream (nvinferserver's configuration). It runs ONNX Runtime, or with --engine tensorrt an engine.",
            show_default=False,
        ),
    ] = None
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("salema-model")
    fp32: Annotated[bool, typer.Option("--fp32", help="Weights and compute in FP32 [the default].")] = False
    fp16: Annotated[bool, typer.Option("--fp16", "--half", help="Weights and compute in FP16.")] = False
    int8: Annotated[bool, typer.Option("--int8", help="Convolutions in INT8; with --calib.")] = False

    @property
    def precision(self) -> str:
        """The precision that was chosen.

        Raises:
            UsageError: more than one flag is given.
        """
        given = [name for name in PRECISIONS if getattr(self, name)]
        if len(given) > 1:
            raise UsageError(f"{' '.join(f'--{name}' for name in given)}: give one of them")
        return given[0] if given else "fp32"


@dataclass(frozen=True)
class ExportOptions:
    """How to export a model. `batch` None leaves the batch free; `precision` is `fp32`, `fp16` or `int8`."""

    precision: str = "fp32"
    calib: Annotated[
        str | None, typer.Option(metavar="VIDEO|FOLDER", help="INT8: frames to calibrate and check on, like yours.")
    ] = None
    calib_frames: Annotated[int, typer.Option(metavar="N", help="INT8: how many frames to calibrate on.")] = 64
    float_layers: Annotated[
        tuple[str, ...],
        typer.Option(
            "--float-layer",
            metavar="NAME",
            help="INT8: layer to leave in float, such as salgan.60; repeat it for several.",
        ),
    ] = ()
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="INT8: print what each layer costs where it alone is INT8.")
    ] = False
    arch: Annotated[
        str, typer.Option(help="auto, salgan, salema, salclstm30 or salclstm56; auto reads the checkpoint.")
    ] = "auto"
    ema_locs: Annotated[
        tuple[int, ...],
        typer.Option(
            "--ema-loc",
            metavar="LAYER",
            help="Layer whose output is averaged, 0 to 61 [default: 30]; give it twice for a double EMA.",
        ),
    ] = ()
    residual: Annotated[
        bool | None, typer.Option("--residual/--no-residual", help="Add what entered that layer to the state.")
    ] = None
    alpha: Annotated[float | None, typer.Option(help="Weight of the new frame [default: 0.1].")] = None
    alpha_sigmoid: Annotated[
        bool, typer.Option("--alpha-sigmoid", help="Put alpha through a sigmoid, as the published code does.")
    ] = False
    reference_fps: Annotated[
        float | None,
        typer.Option(
            metavar="FPS",
            help="Frames per second the weights were trained at, for salema-run --time-aware [default: 30, DHF1K's].",
        ),
    ] = None
    plain_recurrence: Annotated[
        bool,
        typer.Option(
            "--plain-recurrence",
            help="In the encoder, average by the formula alone; the published code's ReLUs there work in place.",
        ),
    ] = False
    imgsz_hw: Annotated[
        tuple[int, int],
        typer.Option(
            "--imgsz",
            metavar="HEIGHT WIDTH",
            help="Size of the network, multiples of 16 [default: 192 256].",
            show_default=False,
        ),
    ] = (192, 256)
    batch: Annotated[
        int | None,
        typer.Option(parser=_streams, metavar="N|dynamic", help="Independent streams per step, or 'dynamic'."),
    ] = 1
    split: Annotated[
        bool, typer.Option("--split", help="Write encoder and decoder apart, with our EMA kernel between them.")
    ] = False
    for_: Annotated[
        str,
        typer.Option(
            "--for",
            help="What will run the graph, which is then rewritten to suit: any, onnxruntime, openvino, tensorrt,"
            " ncnn (its own files beside the ONNX graph).",
        ),
    ] = "any"
    rewrite: Annotated[
        bool,
        typer.Option("--rewrite/--no-rewrite", help="Rewrite the graph where it pays; the result stays the same."),
    ] = True
    mean_channel: Annotated[
        bool,
        typer.Option(
            "--mean-channel", help="Take the mean off in the first convolution, as a fourth channel: exact, any target."
        ),
    ] = False
    save_weights: Annotated[
        Path | None, typer.Option(help="Also write the weights and their architecture as .safetensors.")
    ] = None


@dataclass(frozen=True)
class EngineOptions:
    """How to build an engine. `targets` are in lower case, such as `sm89`."""

    workspace_gib: Annotated[
        float | None, typer.Option("--workspace", metavar="GIB", help="Most scratch memory while building.")
    ] = None
    timing_cache: Annotated[
        Path | None, typer.Option(help="File of timings, made if missing, that quickens later builds (TensorRT).")
    ] = None
    optimization_level: Annotated[
        int | None, typer.Option(help="0 to 5: how long the builder searches (TensorRT) [default: its own, 3].")
    ] = None
    targets: Annotated[
        tuple[str, ...],
        typer.Option(
            "--target",
            metavar="SM",
            callback=_lower_once,
            help="GPU to build for: sm75, sm80, sm86, sm89, sm120 or sm121; repeat it for several (TensorRT-RTX)"
            " [default: this one].",
        ),
    ] = ()
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Run in later versions too (TensorRT).")
    ] = False
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Run on every GPU from Ampere on (TensorRT).")
    ] = False
    batch_profile: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            metavar="LEAST BEST MOST", help="Streams per step of an engine with --batch dynamic [default: 1 1 8]."
        ),
    ] = None
