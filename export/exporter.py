"""The whole export: checkpoint in, verified model folder out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch

from salema.export.graph.models import Decoder, Encoder, SaliencyStep
from salema.export.graph.rewrite import FOLDED, FOR, rewrites_for
from salema.export.graph.to_ncnn import ncnn_form
from salema.export.graph.to_onnx import DTYPES, to_onnx
from salema.export.graph.verify import Report, verify
from salema.export.int8.forms import check_runtime
from salema.export.int8.to_int8 import Int8Report, to_int8
from salema.export.weights.architecture import (
    KINDS,
    MULTIPLE,
    Architecture,
    choose_architecture,
    doubt_of_name,
    effective_coefficient,
)
from salema.export.weights.checkpoint_files import save_safetensors
from salema.export.weights.checkpoints import Checkpoint, load_checkpoint
from salema.runtime.backends.ncnn_form import NcnnForm, ncnn_weights, read_form
from salema.runtime.backends.ort_session import OrtSession
from salema.runtime.backends.ort_split_session import OrtSplitSession
from salema.runtime.errors import MissingDependencyError, OutputError, UsageError
from salema.runtime.files.whole_files import check_writable, made_folder, written_aside
from salema.runtime.model_folder import MODEL_FILE, NCNN_FILES, PART_FILES
from salema.runtime.output.recovery import remove_unfinished
from salema.runtime.session import Session
from salema.runtime.spec import DEFAULT_FPS, PARTS, ModelSpec, check_fps, salema_version
from salema.runtime.stopping import obey_lost_signal

if TYPE_CHECKING:
    from salema.export.int8.footage import Footage
    from salema.export.options import ExportOptions


@dataclass(frozen=True)
class Result:
    """What was written: files, their size in bytes, the spec, where the architecture comes from, and the checks.

    `report` compares the float graph with PyTorch, `ncnn` its form for ncnn with PyTorch, `int8` the INT8 model with
    the float graph; None where there are none, or ncnn is not installed.
    """

    paths: tuple[Path, ...]
    size_bytes: int
    spec: ModelSpec
    architecture_source: str
    report: Report
    ncnn: Report | None = None
    int8: Int8Report | None = None


def export_model(weights: str, folder: Path, options: ExportOptions, say: Callable[[str], None]) -> Result:
    """Exports a checkpoint to `model.onnx` in a folder, or to `encoder.onnx` and `decoder.onnx` there.

    With `--for ncnn`, its two files for other programs are written beside it. Files appear only after they have passed
    their check.

    `weights` is a checkpoint file, a URL, `seeded`, or the name of shipped ones. `say` takes a line on each step.

    Raises:
        SalemaError: see `load_checkpoint`, `choose_architecture`, `effective_coefficient`, `verify`; for INT8
            `gather` and `to_int8`.
    """
    _check_options(weights, folder, options)
    if options.for_ == "ncnn" or (options.for_ == "openvino" and options.precision == "int8"):
        check_runtime(options.for_)
    names = PART_FILES if options.split else (MODEL_FILE, *(NCNN_FILES if options.for_ == "ncnn" else ()))
    paths = tuple(folder / name for name in names)
    with made_folder(folder), ExitStack() as stack:
        if not os.access(folder, os.W_OK):
            raise OutputError(f"{folder}: can't write into this folder; choose another with -o")
        for note in remove_unfinished(folder):
            say(note)
        aside = [stack.enter_context(written_aside(path)) for path in paths]
        footage = _footage(options, say)
        spec, source, checks = _export(weights, options, footage, aside, say)
        obey_lost_signal()  # before any file gets its name; under load, an export once went on after SIGTERM
        _remove_older(folder, names, say)
    return Result(paths, sum(path.stat().st_size for path in paths), spec, source, *checks)


def _remove_older(folder: Path, names: Sequence[str], say: Callable[[str], None]) -> None:
    """Removes ncnn's own files of the model that is replaced now: other programs would take them for this one's."""
    for name in NCNN_FILES:
        if name not in names and (folder / name).exists():
            (folder / name).unlink()
            say(f"removed       {name}, of the model that was here before")


def _footage(options: ExportOptions, say: Callable[[str], None]) -> Footage | None:
    if options.calib is None:
        return None
    # Only here: it reads videos, and a machine that measures on a GPU may lack what that takes.
    from salema.export.int8.footage import gather  # noqa: PLC0415

    footage = gather(options.calib, options.calib_frames, *options.imgsz_hw)
    counts = f"{footage.count} to calibrate on, {len(footage.held_out)} held out"
    say(f"frames        {counts}, of {', '.join(footage.sources)}")
    return footage


def _save_and_open(
    model: SaliencyStep, spec: ModelSpec, form: NcnnForm | None, aside: list[Path], *, split: bool
) -> Session:
    """Writes the graph, or both parts, and loads them again."""
    if not split:
        onnx.save(to_onnx(model, spec, form), aside[0])
        return OrtSession(aside[0], "cpu")
    encoder = Encoder(model)
    for path, part, module in zip(aside, PARTS[1:], (encoder, Decoder(encoder)), strict=True):
        onnx.save(to_onnx(module, replace(spec, part=part, split=encoder.split)), path)
    return OrtSplitSession(*aside)


def _check_ncnn(model: SaliencyStep, file: Path, say: Callable[[str], None], *, required: bool) -> Report | None:
    """Checks the file's form for ncnn, if that is installed; else says so."""
    try:
        from salema.runtime.backends.ncnn_session import NcnnSession  # noqa: PLC0415 - optional
    except MissingDependencyError as error:
        if required:
            raise
        say(f"not checked   the form for ncnn: {error}")
        return None
    with NcnnSession(file) as session:
        say("checking      the same in ncnn")
        return verify(model, session)


def _write_for_others(model: Path, param: Path, weights: Path) -> None:
    form = read_form(model)
    param.write_text(form.param, "ascii")
    with weights.open("wb") as file:
        file.writelines(ncnn_weights(form, model))


def _export(
    weights: str, options: ExportOptions, footage: Footage | None, aside: list[Path], say: Callable[[str], None]
) -> tuple[ModelSpec, str, tuple[Report, Report | None, Int8Report | None]]:
    """Writes the model and checks it; returns its spec, where its architecture comes from, and the checks."""
    checkpoint = load_checkpoint(weights, next((kind for kind in KINDS if kind == options.arch), "salema"))
    say(f"weights       {checkpoint.name}, SHA-256 {checkpoint.sha256}")
    if not checkpoint.trained:
        say("              UNTRAINED: seeded weights make maps that mean nothing; give a checkpoint for real ones")
    architecture, source = _architecture(options, checkpoint)
    say(f"architecture  {architecture.name} ({source})")
    if architecture.recurrence:
        say(f"recurrence    {architecture.recurrence}")
    spec, model = _plan(options, checkpoint, architecture)
    if spec.coefficient is not None:
        say(f"coefficient   {spec.coefficient:.6g} of the new frame ({spec.coefficient_source})")
    exported = SaliencyStep(architecture, checkpoint.weights, DTYPES[spec.precision], spec.rewrites)
    rewritten = f", rewritten: {', '.join(spec.rewrites)}" if spec.rewrites else ""
    say(f"exporting     {spec.precision}, {spec.height}x{spec.width}, batch {spec.batch or 'dynamic'}{rewritten}")
    form = None if options.split or FOLDED.keys() & set(spec.rewrites) else ncnn_form(model, spec)
    with _save_and_open(exported, spec, form, aside, split=options.split) as session:
        say("checking      PyTorch against the file, frame by frame, with a reset")
        report, ncnn, int8 = verify(model, session), None, None
    if footage is not None:
        spec, int8 = to_int8(model if options.for_ == "ncnn" else exported, aside, footage, options, say)
    elif form is not None:
        ncnn = _check_ncnn(model, aside[0], say, required=options.for_ == "ncnn")
    if options.for_ == "ncnn":
        _write_for_others(*aside)
    if options.save_weights is not None:
        save_safetensors(
            options.save_weights,
            checkpoint.weights,
            checkpoint.learned_alpha,
            architecture,
            trained=checkpoint.trained,
        )
        say(f"saved         {options.save_weights}")
    return spec, source, (report, ncnn, int8)


def _architecture(options: ExportOptions, checkpoint: Checkpoint) -> tuple[Architecture, str]:
    """Chooses the variant; returns it, and in words where it comes from."""
    architecture, source = choose_architecture(
        checkpoint.kind, checkpoint.hint, options.arch, options.ema_locs, options.residual
    )
    doubt = doubt_of_name(checkpoint.name, checkpoint.kind)
    if doubt and checkpoint.hint is None and not options.ema_locs:
        source = f"{source}; {doubt}"
    return replace(architecture, plain_recurrence=options.plain_recurrence), source


def _check_options(weights: str, folder: Path, options: ExportOptions) -> None:
    if (options.precision == "int8") != (options.calib is not None):
        raise UsageError("--int8 and --calib go together: --calib VIDEO or FOLDER names the frames to calibrate on")
    if options.for_ not in FOR:
        raise UsageError(f"--for {options.for_}: not one of {', '.join(FOR)}")
    if options.for_ == "ncnn" and options.split:
        raise UsageError("--for ncnn --split: ncnn runs whole models; leave one of them out")
    height, width = options.imgsz_hw
    if min(height, width) < MULTIPLE or height % MULTIPLE or width % MULTIPLE:
        nearest = " ".join(str(max(round(size / MULTIPLE), 1) * MULTIPLE) for size in options.imgsz_hw)
        raise UsageError(f"--imgsz {height} {width}: both must be multiples of {MULTIPLE}; the nearest are {nearest}")
    if options.batch is not None and options.batch < 1:
        raise UsageError(f"--batch {options.batch}: give 1 or more, or 'dynamic'")
    for name in (MODEL_FILE, *NCNN_FILES) if options.split else PART_FILES:
        if (folder / name).exists():
            raise UsageError(
                f"-o {folder}: holds {name}, a model exported {'without' if options.split else 'with'} --split;"
                " choose another folder, or remove it"
            )
    if options.reference_fps is not None:
        check_fps("--reference-fps", options.reference_fps)
    if options.save_weights is not None:
        _check_saved(options.save_weights, weights, folder)


def _check_saved(saved: Path, weights: str, folder: Path) -> None:
    if saved.exists() and Path(weights).exists() and saved.samefile(weights):
        raise UsageError(f"--save-weights {saved}: is the checkpoint itself; choose another name")
    if saved.suffix.lower() != ".safetensors":  # else it could replace a file of the model
        raise UsageError(f"--save-weights {saved}: not a name that ends in .safetensors")
    if saved.parent.resolve() != folder.resolve():  # which may not exist yet
        check_writable(saved)


def _plan(options: ExportOptions, checkpoint: Checkpoint, architecture: Architecture) -> tuple[ModelSpec, SaliencyStep]:
    coefficient, coefficient_source = None, "no EMA"
    if architecture.kind == "salema":
        coefficient, coefficient_source = effective_coefficient(
            checkpoint.learned_alpha, options.alpha, sigmoid=options.alpha_sigmoid
        )
    elif options.alpha is not None or options.alpha_sigmoid:
        advice = "leave it out" + (", or add --ema-loc 30" if architecture.kind == "salgan" else "")
        raise UsageError(f"--alpha is the coefficient of an EMA, and {architecture.name} has none; {advice}")
    elif options.reference_fps is not None:
        raise UsageError(f"--reference-fps counts the time of an EMA, and {architecture.name} has none; leave it out")
    elif checkpoint.learned_alpha is not None:
        raise UsageError(
            f"--arch {options.arch}: the checkpoint holds a learned alpha, so it is a SalEMA; leave it out"
        )
    model = SaliencyStep(architecture, checkpoint.weights, torch.float32).eval()
    height, width = options.imgsz_hw
    spec = ModelSpec(
        architecture=architecture.name,
        height=height,
        width=width,
        batch=options.batch,
        precision="fp32" if options.precision == "int8" else options.precision,  # INT8 is made from the checked FP32
        states=model.state_specs(height, width),
        coefficient=coefficient,
        coefficient_source=coefficient_source,
        weights=checkpoint.name,
        weights_sha256=checkpoint.sha256,
        trained=checkpoint.trained,
        rewrites=rewrites_for(options),
        plain_recurrence=architecture.plain_recurrence,
        salema_version=salema_version(),
        reference_fps=DEFAULT_FPS if options.reference_fps is None else options.reference_fps,
    )
    return spec, model
