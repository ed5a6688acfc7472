"""`make gpu-check`: the checks that need a GPU, in stages by their worth, each with its results as JSON.

tests: those marked `gpu`, as far as this GPU can run them; kernels: bandwidth as a share of a copy's; bench: PyTorch,
then our models, as a share of what a matrix product and a copy reach; parity: maps and states over a long video with
PyTorch's in FP32; sanitizers: the kernels under compute-sanitizer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from salema.benchmarks.gpu.gpu_tests import describe_end, run_limited
from salema.benchmarks.gpu.settings import STAGES, Settings
from salema.kernels.gpus import list_gpus
from salema.runtime.errors import UsageError, exit_on_error
from salema.runtime.files.whole_files import make_folder, write_bytes
from salema.runtime.telling import tell

DEVICES = ("cuda", "cpu")
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def check(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("gpu-check"),
    only: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help=f"One of {', '.join(STAGES)}; repeat it for several.")
    ] = None,
    weights: Annotated[str, typer.Option(help="Checkpoint, or seeded.")] = "seeded",
    frames: Annotated[int, typer.Option(help="Frames of the comparison with PyTorch.")] = 300,
    rounds: Annotated[int, typer.Option(help="Rounds of the timing.")] = 15,
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the script itself.")] = "cuda",
    imgsz: Annotated[tuple[int, int], typer.Option(metavar="HEIGHT WIDTH", help="Size of the network.")] = (192, 256),
    seconds: Annotated[float, typer.Option(help="Of each case of salema-bench.")] = 3,
    stage_seconds: Annotated[float, typer.Option(help="After which a stage is ended.")] = 480,
) -> None:
    """Run the checks that need a GPU, and leave the results of each stage as JSON."""
    with exit_on_error("gpu-check", "use a smaller --imgsz"):
        for name in only or ():
            if name not in STAGES:
                raise UsageError(f"--only {name}: not one of {', '.join(STAGES)}")
        if device not in DEVICES:
            raise UsageError(f"--device {device}: not one of {', '.join(DEVICES)}")
        if device == "cuda":
            list_gpus()
        make_folder(out)
        with TemporaryDirectory() as models:
            places = out.resolve(), Path(models)
            settings = Settings(*places, weights, frames, rounds, device, imgsz, seconds, stage_seconds)
            chosen = [name for name in STAGES if not only or name in only]
            failed = [name for name in chosen if not _run_stage(name, settings)]
    if failed:
        tell(f"gpu-check: failed: {', '.join(failed)}; see the files in {out}")
    raise SystemExit(int(bool(failed)))


def _run_stage(name: str, settings: Settings) -> bool:
    """Runs a stage in its own process: a crash or a fault of the GPU ends that stage only.

    Where the process said what it was at when it crashed, the stage goes again without that, in the time that is left.
    """
    tell(f"gpu-check: {name}")
    file = settings.out / f"{name}.json"
    file.unlink(missing_ok=True)
    until_s = time.monotonic() + settings.stage_s
    while (code := _run_once(name, settings)) < 0:
        at, why = _read(file, name).get("at"), describe_end(code)["error"]
        if at is None or at in settings.crashed:
            break
        tell(f"  {at}: {why}; again without it")
        left_s = until_s - time.monotonic()
        settings = replace(settings, stage_s=left_s, crashed={**settings.crashed, at: why})
    record = _read(file, name)
    if record.get("ok") is None:  # it did not come to its end
        record |= describe_end(code) | {"ok": False}
        write_bytes(file, json.dumps(record, indent=1).encode())
    for key in ("error", "failed", "not_available"):
        for text in [record[key]] if isinstance(record.get(key), str) else record.get(key, ()):
            tell(f"gpu-check: {name}: {key.replace('_', ' ')}: {text}")
    return bool(record["ok"])


def _run_once(name: str, settings: Settings) -> int:
    command = [sys.executable, "-m", "salema.benchmarks.gpu.stages", name, settings.to_json()]
    # NVIDIA's libraries read it as they start, so a stage that runs several backends would set it too late.
    return run_limited(command, settings.stage_s, environment=os.environ | {"NVIDIA_TF32_OVERRIDE": "0"})


def _read(file: Path, name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(file.read_bytes()) if file.is_file() else {"stage": name}
    return record


def main() -> None:
    """Runs the command."""
    app()


if __name__ == "__main__":
    main()
