"""The README's table of speed is what `salema-bench report` prints of the committed results."""

from pathlib import Path

from salema.benchmarks.cli import main
from salema.benchmarks.records import read_records

ROOT = Path(__file__).parents[2]
TIMES = "\N{MULTIPLICATION SIGN}"


def test_a_batch_gains_what_the_readme_says():
    fps = {record["case"]: record["fps"] for record in read_records(ROOT / "benchmarks/results/cpu_batch.jsonl")}
    gains = {name: fps[f"dyn-{name}: auto, batch 4"] / fps[f"dyn-{name}: auto"] for name in ("onnxruntime", "ncnn")}
    said = f"(ONNX Runtime {gains['onnxruntime']:.2f} {TIMES}, ncnn {gains['ncnn']:.2f} {TIMES}:"
    assert said in (ROOT / "README.md").read_text("utf-8")


def test_speed(cli):
    ran = cli(main, "report", ROOT / "benchmarks/results/cpu.jsonl")
    assert ran.code == 0, ran.err
    assert ran.out.strip() in (ROOT / "README.md").read_text("utf-8")
