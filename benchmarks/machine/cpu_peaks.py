"""A CPU's arithmetic peaks, and how near products come: `python -m salema.benchmarks.machine.cpu_peaks FILE.json`.

It measures 1, 2, 4 ... cores, and writes them under the CPU's name. Other CPUs in the file stay, and so does what was
faster on this one: where others use the machine too, the best of a peak or a product may need several runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from salema.benchmarks.machine.environment import cpu_in_words, describe_environment
from salema.benchmarks.machine.peaks import measure_peaks
from salema.benchmarks.machine.rates import measure_products
from salema.runtime.cpu import usable_cores
from salema.runtime.files.whole_files import write_bytes

SIZES = (512, 1024, 2048)
_PRECISIONS = {"fp32", "bf16", "int16", "int8"}
_HEADER = ("CPU", "cores", "precision", "instruction", "1e9 operations/s", "a cycle and core", "GHz", "best product")


def measure(cores: int, sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """Returns the peaks of some cores, and the operations per second of PyTorch's products by size and precision."""
    peaks = measure_peaks(_PRECISIONS, cores)
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        products = {str(size): measure_products({"fp32", "bf16", "int8"}, size, "cpu") for size in sizes}
    finally:
        torch.set_num_threads(before)
    return {"peaks": asdict(peaks), "products": products}


def best_of(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Returns the higher rates of two measurements of as many cores, each as `measure` returns it."""
    peaks = {**now["peaks"]}
    for precision, rate in before["peaks"]["operations_per_s"].items():
        if rate > peaks["operations_per_s"].get(precision, 0):
            for name in ("operations_per_s", "instructions", "clock_ghz"):
                peaks[name] = {**peaks[name], precision: before["peaks"][name][precision]}
    products = {size: {**rates} for size, rates in now["products"].items()}
    for size, rates in before["products"].items():
        best = products.setdefault(size, {})
        best |= {precision: max(rate, best.get(precision, 0)) for precision, rate in rates.items()}
    return {"peaks": peaks, "products": products}


def table(kept: Mapping[str, Any]) -> str:
    """Returns the file's content as a Markdown table."""
    rows: list[tuple[str, ...]] = [_HEADER, ("---",) * len(_HEADER)]
    for cpu in kept.values():
        for measured in cpu["measured"]:
            rows += [(cpu_in_words(cpu["environment"], short=True), *row) for row in _rows(measured)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _rows(measured: Mapping[str, Any]) -> list[tuple[str, ...]]:
    peaks = measured["peaks"]
    rows: list[tuple[str, ...]] = []
    for precision, rate in peaks["operations_per_s"].items():
        ghz = peaks["clock_ghz"][precision]
        products = {size: rates[precision] for size, rates in measured["products"].items() if precision in rates}
        size = max(products, key=lambda size: products[size], default="")
        best = f"{products[size] / rate:.0%} ({size}x{size})" if size else "-"
        per_cycle = rate / ghz / 1e9 / peaks["cores"]
        instruction = peaks["instructions"][precision]
        rows.append(
            (str(peaks["cores"]), precision, instruction, f"{rate / 1e9:.0f}", f"{per_cycle:.0f}", f"{ghz:.2f}", best)
        )
    return rows


def main() -> None:
    """Measures, writes JSON and prints the table."""
    file = Path(sys.argv[1])
    kept = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    environment = describe_environment()
    most = usable_cores()
    counts = sorted({*(2**power for power in range(most.bit_length())), most})
    name = cpu_in_words(environment)
    before = {one["peaks"]["cores"]: one for one in kept.get(name, {"measured": []})["measured"]}
    for count in counts:
        now = measure(count)
        before[count] = best_of(before[count], now) if count in before else now
    kept[name] = {"environment": environment, "measured": [before[count] for count in sorted(before)]}
    write_bytes(file, json.dumps(kept, indent=1).encode() + b"\n")
    print(table(kept))


if __name__ == "__main__":
    main()
