"""The layout of the packages: no import circle, arrows down only, small folders, every room in the wheel."""

import ast
import graphlib
import re
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ("kernels", "runtime", "export", "benchmarks", "training")
MOST_MODULES, MOST_LINES, MOST_FUNCTION_LINES = 14, 300, 40
NOT_IN_WHEEL = {
    *("salema.benchmarks.studies", "salema.benchmarks.studies.serve_load"),
    "salema.training.shipping",
}


def modules():
    """Every module of ours by its dotted name."""
    paths = chain.from_iterable((ROOT / top).rglob("*.py") for top in ORDER)
    names = {".".join(("salema", *path.relative_to(ROOT).with_suffix("").parts)): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


MODULES = modules()
SOURCES = {str(path.relative_to(ROOT)): path for path in (*MODULES.values(), *(ROOT / "tests").rglob("*.py"))}


def imported(path):
    """What a module imports of ours, wherever in it: at its top, in a function, or for types alone."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in inner)


@cache
def graph():
    """What each module imports; read once, and not by the processes that only collect the tests."""
    return {name: set(imported(path)) - {name} for name, path in MODULES.items()}


def test_imports_are_seen_wherever_they_stand():
    assert len(graph()) > 150
    assert "salema.runtime.errors" in graph()["salema.runtime.spec"]
    assert "salema.runtime.backends.opening" in graph()["salema.runtime"]  # inside a function
    assert "salema.runtime.session" in graph()["salema.runtime.stream"]


def test_no_import_circle():
    order = list(graphlib.TopologicalSorter(graph()).static_order())  # a CycleError names the circle
    place = {name: index for index, name in enumerate(order)}
    assert all(place[other] < place[name] for name, others in graph().items() for other in others)


def test_arrows_go_down_only():
    level = {top: index for index, top in enumerate(ORDER)}
    up = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if level[other.split(".")[1]] > level[name.split(".")[1]]
    ]
    assert up == []


@pytest.mark.parametrize("name", sorted({str(path.parent.relative_to(ROOT)) for path in MODULES.values()}))
def test_no_folder_is_crowded(name):
    held = [path for path in (ROOT / name).glob("*.py") if path.name != "__init__.py"]
    assert len(held) <= MOST_MODULES
    assert (ROOT / name / "__init__.py").is_file()


def test_no_file_is_long():
    lengths = {name: len(path.read_text("utf-8").splitlines()) for name, path in SOURCES.items()}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def is_command(function):
    """Whether it is decorated with Typer's `@app.command()` or `@app.callback()`: it declares options, a line each."""
    calls = [decorator.func for decorator in function.decorator_list if isinstance(decorator, ast.Call)]
    return any(isinstance(call, ast.Attribute) and call.attr in {"command", "callback"} for call in calls)


def test_no_function_is_long():
    long = {}
    for name, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_command(node):
                lines = node.end_lineno - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    long[f"{name}:{node.name}"] = lines
    assert long == {}


def test_the_wheel_holds_every_room_but_those_left_out():
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    listed = re.search(r"^packages = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r'"(salema[\w.]+)"', listed[1])) == packages - NOT_IN_WHEEL


def test_modules_in_the_wheel_import_no_module_outside_it():
    outside = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if other.rpartition(".")[0] in NOT_IN_WHEEL and name.rpartition(".")[0] not in NOT_IN_WHEEL
    ]
    assert outside == []


def test_tests_mirror_the_rooms():
    """Each folder of tests is a room of the packages."""
    rooms = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")} - {Path()}
    assert sorted(str(room) for room in rooms if not (ROOT / room).is_dir()) == []
