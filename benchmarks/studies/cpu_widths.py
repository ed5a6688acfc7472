"""How fast networks with fewer channels are, in FP32, BF16 and INT8 on every CPU backend, against PyTorch eager.

Weights are seeded. Export all first, then measure one width at a time, each in a minute or two; FILE.jsonl keeps the
last measurement of each width on each CPU.
`python -m salema.benchmarks.studies.cpu_widths export FOLDER VIDEO`: INT8 is calibrated on VIDEO.
`python -m salema.benchmarks.studies.cpu_widths measure FOLDER WIDTH FILE.jsonl`: of 1/WIDTH of the channels.
`python -m salema.benchmarks.studies.cpu_widths table FILE.jsonl`
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from salema.benchmarks.speed.bench import run_bench
from salema.benchmarks.speed.cases import Plan
from salema.benchmarks.speed.records import read_records, write_records
from salema.benchmarks.speed.report import by_machine
from salema.export.exporter import export_model
from salema.export.int8 import gate, to_int8
from salema.export.options import ExportOptions
from salema.runtime.errors import SalemaError
from salema.runtime.telling import tell

WIDTHS = (1, 2, 4, 8)
KIND = "width"
PEERS = ("pytorch", "pytorch-channels-last", "pytorch-bf16", "openvino")
FORMS: dict[str, tuple[str, ...]] = {  # by folder: precision and `--for`; and what runs it
    "fp32-onnxruntime": ("onnxruntime",),
    "fp32-openvino": ("openvino", "openvino-bf16"),
    "fp32-ncnn": ("ncnn",),
    "int8-onnxruntime": ("onnxruntime",),
    "int8-openvino": ("openvino",),
    "int8-ncnn": ("ncnn",),
}
_SECONDS = 3.0
_LEAST_CC = 0.95


def export(folder: Path, video: str, widths: Sequence[int] = WIDTHS) -> None:
    """Exports every form of every width to `FOLDER/WIDTH/FORM`; one that is refused is told, and left out."""
    # Of untrained weights only the speed counts: at half the channels they missed the gate by 0.0006 at most,
    # and layers left in float for it would make that width slower than the others.
    to_int8.AIM_CC = to_int8.LEAST_CC = gate.LEAST_CC = _LEAST_CC  # type: ignore[attr-defined]
    for width in widths:
        for form in FORMS:
            precision, _, target = form.partition("-")
            calib = video if precision == "int8" else None
            try:
                options = ExportOptions(precision=precision, for_=target, calib=calib)
                export_model(f"seeded:{width}", folder / str(width) / form, options, tell)
            except SalemaError as error:
                tell(f"{width}, {form}: {error}")


def measure(
    folder: Path, width: int, duration_s: float = _SECONDS, peers: Sequence[str] = PEERS
) -> list[dict[str, Any]]:
    """Measures what was exported of one width, in turns; returns a record for each case.

    Raises:
        SalemaError: a backend can't run here, or nothing was exported.
    """
    there = [(folder / str(width) / form, backends) for form, backends in FORMS.items()]
    there = [(model, backends) for model, backends in there if model.is_dir()]
    own = {place: backends for place, (_, backends) in enumerate(there)}
    plan = Plan(tuple(model for model, _ in there), peers=tuple(peers), duration_s=duration_s, own=own)
    return [record | {"kind": KIND, "channels_over": width} for record in run_bench(plan, tell)]


def merge(before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns earlier records and those of one new run, which replaces those of its width on its CPU."""
    (machine,) = by_machine(now)
    same = [
        record for record in by_machine(before).get(machine, []) if record["channels_over"] == now[0]["channels_over"]
    ]
    return [*(record for record in before if record not in same), *now]


def table(records: Sequence[dict[str, Any]]) -> str:
    """Returns a table of each machine: steps per second, and how many times PyTorch eager's of the same width."""
    return "\n\n".join(f"{machine}:\n\n{_table(group)}" for machine, group in by_machine(records).items())


def _table(records: Sequence[dict[str, Any]]) -> str:
    widths = sorted({record["channels_over"] for record in records})
    found = {(record["case"], record["precision"], record["channels_over"]): record for record in records}
    rows = [("case", "precision", *("all channels" if width == 1 else f"1/{width}" for width in widths))]
    rows.append(("---",) * len(rows[0]))
    for case, precision in dict.fromkeys(key[:2] for key in found):
        rows.append((case, precision, *(_cell(found.get((case, precision, width))) for width in widths)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(record: dict[str, Any] | None) -> str:
    if record is None:
        return "-"
    per_s = 1e3 / record["timing"]["median_ms"]
    return f"{per_s:.3g} ({record['timing']['ratio']:.2f})"


def main() -> None:
    """Exports, measures or prints."""
    what, *given = sys.argv[1:]
    if what == "export":
        export(Path(given[0]), given[1])
        return
    file = Path(given[-1])
    records = read_records(file, KIND) if file.exists() else []
    if what == "measure":
        records = merge(records, measure(Path(given[0]), int(given[1])))
        write_records(file, records)
    print(table(records))


if __name__ == "__main__":
    main()
