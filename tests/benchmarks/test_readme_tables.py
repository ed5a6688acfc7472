"""The README's tables of numbers are what the commands print of the committed results."""

import json
from pathlib import Path

import pytest

from salema.benchmarks.cli import main
from salema.benchmarks.cost import Line, Point, cost_table, fit_lines
from salema.benchmarks.records import read_records

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["cpu.jsonl", "cpu_batch.jsonl"])
def test_speed(cli, name):
    ran = cli(main, "report", RESULTS / name)
    assert ran.code == 0, ran.err
    assert ran.out.strip() in README


def test_cost():
    (record,) = read_records(RESULTS / "cpu_cost.jsonl")
    points, lines = ([kind(**entry) for entry in record[name]] for name, kind in (("cost", Point), ("lines", Line)))
    assert [json.dumps(vars(line)) for line in fit_lines(points)] == [json.dumps(vars(line)) for line in lines]
    assert cost_table(points, lines) in README
