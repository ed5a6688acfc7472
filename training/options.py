"""Options of `salema-train` that are not the recipe's: data, network, run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True)
class DataOptions:
    """What to train and to validate on."""

    dataset: Annotated[
        str, typer.Option(help="DHF1K, Hollywood-2, UCF-sports, other, or photographs (images and fixations in .npz).")
    ] = "DHF1K"
    src: Annotated[Path | None, typer.Option(help="The dataset's folder.", show_default=False, readable=False)] = None
    gt: Annotated[Path | None, typer.Option(help="Folder of the ground truth [default: --src].", readable=False)] = None
    start: Annotated[int | None, typer.Option(help="DHF1K: least number of a video [default: 1].")] = None
    end: Annotated[int | None, typer.Option(help="DHF1K: greatest number of a video [default: 600].")] = None
    val: Annotated[
        str | None,
        typer.Option(
            metavar="A-B|N:K|DIR|none",
            help="DHF1K: numbers of the videos to validate on [default: 601-700]. Others: every Nth one from the Kth"
            " on, counted from 0 in the order of names, which is then not trained on [default: 14:3]; or a folder.",
        ),
    ] = None


@dataclass(frozen=True)
class NetworkOptions:
    """What to train."""

    arch: Annotated[
        str,
        typer.Option(
            help="auto (SalEMA30, or the kind of --init), salgan, salema30 (any layer; r for residual; 7+54 for two),"
            " salclstm30, salclstm56."
        ),
    ] = "auto"
    init: Annotated[str, typer.Option(help="Checkpoint to begin with, a URL, nano (it ships), or seeded.")] = "seeded"
    width: Annotated[str, typer.Option(help="Share of the channels of seeded weights, such as 1/8.")] = "1"
    alpha: Annotated[str, typer.Option(help="Weight of the new frame: learned, or a number in (0, 1] that stays.")] = (
        "learned"
    )
    imgsz_hw: Annotated[
        tuple[int, int],
        typer.Option(
            "--imgsz", metavar="HEIGHT WIDTH", help="Size of the network [default: 192 256].", show_default=False
        ),
    ] = (192, 256)
    teacher: Annotated[
        str | None,
        typer.Option(metavar="FILE|DIR", help="Checkpoint, or folder of maps, that the network also learns from."),
    ] = None
    teacher_share: Annotated[
        float, typer.Option(min=0, max=1, help="The teacher's share of the loss; the rest is the ground truth's.")
    ] = 0.5


@dataclass(frozen=True)
class RunOptions:
    """How to run, and what to leave behind."""

    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run.")] = Path("salema-training")
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn.")] = 0
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto"
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16 (the weights stay FP32).")] = "fp32"
    accumulate: Annotated[
        int, typer.Option(min=1, help="Parts that a step's clips are taken in, one after the other: less memory.")
    ] = 1
    workers: Annotated[int, typer.Option(min=0, help="Processes that read ahead.")] = 0
    until: Annotated[
        int | None, typer.Option(min=1, metavar="EPOCH", help="Stop after this one; the schedule is still of all.")
    ] = None
    save_steps: Annotated[int, typer.Option(min=1, help="Steps between states to resume from.")] = 200
    validate_every: Annotated[int, typer.Option(min=1, metavar="EPOCHS", help="Epochs between validations.")] = 1
    score_every: Annotated[
        int, typer.Option(min=1, metavar="FRAMES", help="In a validation, one frame of a video in so many is scored.")
    ] = 5
