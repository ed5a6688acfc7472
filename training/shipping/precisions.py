"""What a lower precision costs shipped weights: FP16, BF16 and INT8 in every form against FP32, by `salema-eval`.

On the photographs that `salema-train` validates on, each a video of one frame; and on clips, where its maps are held
against those of FP32. INT8 is calibrated on what is named. Its weights have 8 bits or 7, as the CPU needs, so FILE.json
has a record for each CPU.
Usage: python -m salema.training.shipping.precisions --src DIR --calib VIDEO|FOLDER [--clip VIDEO]... FILE.json
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from salema.benchmarks.metrics.protocols import METRICS as METRIC_LABELS
from salema.benchmarks.studies.common import write_by_cpu
from salema.export.exporter import export_model
from salema.export.options import ExportOptions
from salema.export.weights.checkpoints import shipped_names
from salema.runtime import load
from salema.runtime.errors import SalemaError, exit_on_error
from salema.training.shipping.clips import BLOCK, FRAMES, clips_table, compare_clips, run_clips
from salema.training.shipping.commands import parser_of, run, split
from salema.training.shipping.lay_out import lay_out

_FLOAT_LAYERS = ("salgan.2", "salgan.5", "salgan.58")
METRICS = ("nss", "auc_judd", "cc", "sim")
FORMS: dict[str, tuple[dict[str, Any], str]] = {  # how it is exported, and what runs it
    "FP32, OpenVINO": ({}, "openvino"),
    "FP32, ncnn": ({"for_": "ncnn"}, "ncnn"),
    "FP16, ONNX Runtime": ({"precision": "fp16"}, "onnxruntime"),
    "BF16, OpenVINO": ({"for_": "openvino"}, "openvino-bf16"),
    "INT8, ONNX Runtime": ({"precision": "int8", "for_": "onnxruntime"}, "onnxruntime"),
    "INT8, OpenVINO": ({"precision": "int8", "for_": "openvino"}, "openvino"),
    "INT8, ncnn": ({"precision": "int8", "for_": "ncnn"}, "ncnn"),
    # What the refusal of the form before advises.
    "INT8, ncnn, three layers in float": ({"precision": "int8", "for_": "ncnn", "float_layers": _FLOAT_LAYERS}, "ncnn"),
}


def export(weights: str, folder: Path, options: dict[str, Any], calib: str) -> None:
    """Exports shipped weights in one form."""
    chosen = ExportOptions(**options, calib=calib if options.get("precision") == "int8" else None)
    export_model(weights, folder, chosen, print)


def predict(folder: Path, backend: str, source: Path, into: Path) -> None:
    """Runs a model over the laid-out photographs, and leaves its maps."""
    run("salema-run", "--dataset", "other", "--src", source, "--dst", into, "--model", folder, "--backend", backend)


def compare(source: Path, first: Path, second: Path) -> dict[str, Any]:
    """Compares the maps of two models; returns the differences, the second's less the first's, with intervals."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.json"
        options = ("--dataset", "other", "--gt", source, "--protocol", "exact", "--json", path)
        run("salema-eval", "--pred", first, "--compare", second, *options)
        record = json.loads(path.read_text("utf-8"))
    return {name: record["difference"]["over_videos"][name] for name in METRICS}


def measure(name: str, source: Path, clips: Sequence[Path], calib: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Measures every form of shipped weights, on photographs and clips; what is refused is told in its place."""
    export(name, folder / "fp32", {}, calib)
    predict(folder / "fp32", "onnxruntime", source, folder / "fp32-maps")
    expected = run_clips(folder / "fp32", "onnxruntime", clips)
    found: dict[str, dict[str, Any]] = {"photographs": {}, "clips": {}}
    for number, (form, (options, backend)) in enumerate(FORMS.items()):
        model, maps = folder / f"{number}", folder / f"{number}-maps"
        try:
            export(name, model, options, calib)
            load(model, backend=backend).close()
        except SalemaError as error:
            found["photographs"][form] = found["clips"][form] = {"refused": str(error)}
            continue
        predict(model, backend, source, maps)
        found["photographs"][form] = compare(source, folder / "fp32-maps", maps)
        found["clips"][form] = compare_clips(run_clips(model, backend, clips), expected)
    return found


def table(forms: dict[str, Any]) -> str:
    """Returns a table of `docs/models.md`: differences from FP32, 95 % intervals in brackets; a refusal as such."""
    rows = [f"| | {' | '.join(METRIC_LABELS[name] for name in METRICS)} |", "|---" * (len(METRICS) + 1) + "|"]
    for form, found in forms.items():
        cells = ["refused"] + [""] * (len(METRICS) - 1) if "refused" in found else [_cell(found[m]) for m in METRICS]
        rows.append(f"| {form} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(difference: dict[str, float]) -> str:
    return f"{difference['mean']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})"


@exit_on_error("precisions")
def main() -> None:
    """Measures weights, those that ship if none are named, and writes JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--calib", required=True, help="what INT8 is calibrated on")
    parser.add_argument("--clip", type=Path, action="append", required=True, help="a video; give it several times")
    parser.add_argument("--weights", action="append", metavar="NAME", help="as salema-export takes them")
    parser.add_argument("file", metavar="FILE.json")
    chosen = parser.parse_args()
    _, held_out = split(chosen.src)
    with tempfile.TemporaryDirectory() as folder:
        lay_out(held_out, Path(folder) / "photographs")
        found = {
            name: measure(name, Path(folder) / "photographs", chosen.clip, chosen.calib, Path(folder) / name)
            for name in chosen.weights or shipped_names()
        }
    record: dict[str, Any] = {
        "photographs": len(held_out.names),
        "against": "FP32, ONNX Runtime",
        "forms": {name: each["photographs"] for name, each in found.items()},
        "clips": {"videos": [clip.name for clip in chosen.clip], "frames": FRAMES, "block": BLOCK},
        "forms_on_clips": {name: each["clips"] for name, each in found.items()},
    }
    for name in found:
        print(f"{name}\n{table(record['forms'][name])}\n\n{clips_table(record['forms_on_clips'][name])}\n")
    write_by_cpu(record)


if __name__ == "__main__":
    main()
