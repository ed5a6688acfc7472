"""The tables in the documentation are what the commands print of the committed results."""

import json
import re
from pathlib import Path

from salema.benchmarks.speed.cli import main
from salema.benchmarks.speed.cost import Point, cost_table, fit_lines
from salema.benchmarks.speed.records import read_records
from salema.benchmarks.speed.report import by_machine, latest
from salema.benchmarks.studies import cpu_widths, eval_speed
from salema.benchmarks.studies.common import cpu_of
from salema.benchmarks.studies.metric_speed import SETTINGS

ROOT = Path(__file__).parents[3]
README_ROWS = [
    ("PyTorch, for comparison", "FP32", "pytorch"),
    ("ONNX Runtime", "FP32", "fp32-onnxruntime"),
    ("OpenVINO", "FP32", "fp32-openvino"),
    ("ncnn", "FP32", "fp32-ncnn"),
    ("OpenVINO", "BF16", "fp32-openvino"),
    ("ONNX Runtime", "INT8", "int8-onnxruntime"),
    ("OpenVINO", "INT8", "int8-openvino"),
    ("ncnn", "INT8", "int8-ncnn"),
]
TIMES = "\N{MULTIPLICATION SIGN}"


def test_a_batch_gains_what_the_readme_says():
    fps = {record["case"]: record["fps"] for record in read_records(ROOT / "benchmarks/results/cpu_batch.jsonl")}
    gains = {name: fps[f"dyn-{name}: auto, batch 4"] / fps[f"dyn-{name}: auto"] for name in ("onnxruntime", "ncnn")}
    said = f"(ONNX Runtime {gains['onnxruntime']:.2f} {TIMES}, ncnn {gains['ncnn']:.2f} {TIMES}:"
    assert said in (ROOT / "docs/speed.md").read_text("utf-8")


def test_speed(cli):
    ran = cli(main, "report", ROOT / "benchmarks/results/cpu.jsonl")
    assert ran.code == 0, ran.err
    assert ran.out.strip() in (ROOT / "docs/speed.md").read_text("utf-8")


def test_the_readme_has_the_speed_of_each_backend():
    """A column for each CPU, the oldest first."""
    machines = by_machine(latest(read_records(ROOT / "benchmarks/results/cpu.jsonl")))
    text = (ROOT / "README.md").read_text("utf-8")
    for name, precision, case in README_ROWS:
        cells = [name, precision]
        for records in machines.values():
            known = {(one["case"].partition(":")[0], one["precision"].upper()): one for one in records}
            one = known.get((case, precision))
            cells += [f"{one['timing']['median_ms']:.1f}", f"{one['quality']['cc']:.5f}"] if one else ["-", "-"]
        assert f"| {' | '.join(cells)} |" in text


def test_forms_of_int8():
    timings = json.loads((ROOT / "benchmarks/results/int8_forms.json").read_text())["timings"]
    said = (ROOT / "docs/speed.md").read_text("utf-8").partition("### Where INT8's time goes")[2]
    first, second, third, *floats = timings.values()
    assert all(f"{one['median_ms']:.1f} ms" in said for one in (first, second, third))
    assert f"({second['ratio']:.2f} {TIMES} as fast" in said
    assert f"{third['ratio']:.2f} {TIMES} ({third['ratio_low']:.2f}-{third['ratio_high']:.2f}) in all" in said
    assert f"{floats[1]['median_ms']:.0f} ms in place" in said
    assert f" of {floats[0]['median_ms']:.0f}, " in said.replace("\n  ", " ")


def test_narrow_networks():
    records = read_records(ROOT / "benchmarks/results/cpu_widths.jsonl", cpu_widths.KIND)
    assert cpu_widths.table(records) in (ROOT / "docs/speed.md").read_text("utf-8")


def test_cost():
    (record,) = read_records(ROOT / "benchmarks/results/cpu_cost.jsonl", "cost")
    points = [Point(**point) for point in record["cost"]]
    text = (ROOT / "docs/speed.md").read_text("utf-8")
    assert cost_table(points, fit_lines(points)) in text
    ms = {point.label: point.step_ms / point.value for point in points if point.axis == "size"}
    assert f"720\N{MULTIPLICATION SIGN}1280 takes {ms['720x1280'] / ms['192x256']:.2f} times" in text


def test_speed_of_the_metrics():
    for record in json.loads((ROOT / "benchmarks/results/metric_speed.json").read_text()):
        for setting in SETTINGS:
            loops, ours = (record["timings"][f"all five, {setting}"][side] for side in ("loops", "salema"))
            ratio = f"{ours['ratio']:.1f} ({ours['ratio_low']:.1f}-{ours['ratio_high']:.1f})"
            row = f"| {setting} | {loops['median_ms']:.1f} | {ours['median_ms']:.2f} | {ratio} |"
            assert row in (ROOT / "docs/scores.md").read_text("utf-8")


def test_speed_of_the_whole_evaluation():
    records = json.loads((ROOT / "benchmarks/results/eval_speed.json").read_text())
    for record in records:
        page = (ROOT / "docs/scores.md").read_text("utf-8")
        assert eval_speed.table(record["timings"]) in page.split(f"\n{cpu_of(record)}")[1]


def test_accuracy_of_int8():
    said = (ROOT / "benchmarks/results/int8_exports.txt").read_text("utf-8")
    least = [f"{float(value):.4f}" for value in re.findall(r"CC +least ([\d.]+), mean", said)]
    page = (ROOT / "docs/status.md").read_text("utf-8")
    assert f"least CC {least[0]}, {least[1]} and {least[2]} (" in page
    assert f"with VNNI ONNX Runtime's and ncnn's took 8: {least[3]} and {least[4]}." in page.replace("\n", " ")
