import ast
import csv
import io
import json
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salema.benchmarks.scores.cli import main as eval_main
from salema.export.cli import main as export_main
from salema.runtime.cli.run import main
from salema.runtime.doctor.cli import main as doctor_main
from salema.runtime.telling import csv_text, harmless, show

ROOT = Path(__file__).parents[2]
RED = "\x1b[31mred\x1b]0;title\x07\x9b2J\r\x7f\u202egnp"
RED_SHOWN = r"\x1b[31mred\x1b]0;title\x07\x9b2J\r\x7f\u202egnp"


def test_control_characters_are_written_out_and_nothing_else_is():
    assert harmless(RED) == RED_SHOWN
    assert harmless("a\nb\tc\u2028d\0") == r"a\nb\tc\u2028d\x00"
    for text in ("plain", "片段 ünï 👩‍💻 caf\udce9", "C:\\new\\table", "می‌خواهم"):
        assert harmless(text) == text


def test_a_table_keeps_its_lines(capsys):
    show("a\x1b[1m\nb\n")
    assert capsys.readouterr().out == "a\\x1b[1m\nb\n\n"


@given(st.text(max_size=8))
def test_no_cell_is_a_formula_and_every_one_is_given_back(text):
    cell = csv_text(text)
    assert not cell.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"))
    assert cell.removeprefix("'") == text
    line = io.StringIO()
    csv.writer(line).writerow([cell, 1])
    assert next(csv.reader(io.StringIO(line.getvalue(), newline="")))[0] == cell


def test_formulas_of_every_kind():
    for text in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "'=1"):
        assert csv_text(text) == f"'{text}"
    for text in ("a=1", "0601", "clip 1", ""):
        assert csv_text(text) == text


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (main, (f"{RED}.mp4",)),
        (main, ("--view", RED, "a.mp4")),
        (main, (f"--{RED}",)),
        (export_main, ("--weights", f"{RED}.pt", "-o", "m")),
        (eval_main, ("--dataset", "other", "--pred", RED, "--gt", RED)),
        (doctor_main, ("--model", RED)),
    ],
)
def test_no_command_passes_escapes_on(cli, tmp_path, monkeypatch, command, arguments):
    monkeypatch.chdir(tmp_path)
    ran = cli(command, *arguments)
    assert ran.code
    assert r"\x1b[31mred\x1b]0;title\x07" in ran.err + ran.out
    assert not set("\x1b\x07\x9b\r\u202e") & set(ran.err + ran.out)


def test_terminal_escapes_in_a_models_facts_are_not_printed(cli, model, small_clip, tmp_path):
    proto = onnx.load(model / "model.onnx")
    entry = next(entry for entry in proto.metadata_props if entry.key == "salema")
    entry.value = json.dumps({**json.loads(entry.value), "weights": RED, "architecture": RED})
    (tmp_path / "m").mkdir()
    onnx.save(proto, tmp_path / "m/model.onnx")
    ran = cli(main, small_clip, "--model", tmp_path / "m", "-o", tmp_path / "o.mp4")
    assert ran.code == 0, ran.err
    assert f"note: {RED_SHOWN} weights are untrained" in ran.err
    assert "\x1b" not in ran.err


def test_everything_that_is_said_goes_through_one_place():
    """Of what a command prints, only JSON, which has no control characters, is printed without it."""
    found = []
    for path in (
        path for room in ("runtime", "export", "benchmarks", "kernels") for path in (ROOT / room).rglob("*.py")
    ):
        is_script = '__name__ == "__main__"' in path.read_text()  # these print numbers of their own
        if path.name == "telling.py" or is_script:
            continue
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            is_json = bool(call.args) and "json" in ast.unparse(call.args[0])
            if (name == "print" and not is_json) or name in {"typer.echo", "sys.stderr.write", "sys.stdout.write"}:
                found.append(f"{path.name}:{call.lineno}")
    assert found == []
