"""The README's table of speed is what `salema-bench report` prints of the committed results."""

from pathlib import Path

from salema.benchmarks.cli import main

ROOT = Path(__file__).parents[2]


def test_speed(cli):
    ran = cli(main, "report", ROOT / "benchmarks/results/cpu.jsonl")
    assert ran.code == 0, ran.err
    assert ran.out.strip() in (ROOT / "README.md").read_text("utf-8")
