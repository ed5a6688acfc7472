"""The source distribution, the wheel built from it, and the commands that the wheel installs."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from itertools import chain

import cv2
import pytest
from synthetic import write_dataset
from test_rooms import NOT_IN_WHEEL, ROOT

PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/py.typed"))
COMMANDS = (
    "salema-bench",
    "salema-doctor",
    "salema-eval",
    "salema-export",
    "salema-run",
    "salema-serve",
    "salema-train",
)
LEFT_OUT = {"benchmarks/results", *(name.removeprefix("salema.").replace(".", "/") for name in NOT_IN_WHEEL)}

pytestmark = pytest.mark.slow


def packaged():
    """The files of the packages, by their paths in the repository."""
    paths = chain.from_iterable((ROOT / top).rglob("*") for top in PACKAGES)
    names = {path.relative_to(ROOT) for path in paths if path.is_file() and path.parent.name != "__pycache__"}
    return {str(name) for name in names if str(name.parent) not in LEFT_OUT}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Builds both from a copy: the build writes beside the sources. Gives source distribution and wheel."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source], check=True)
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def run(built, tmp_path_factory):
    """Runs a command of an environment with the wheel; its dependencies are installed in CI, and lent elsewhere."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet"]
    if os.environ.get("CI"):
        wanted = [f"{built[1]}[cpu,eval,export]", "--constraint", ROOT / "constraints.txt"]
    else:
        wanted = ["--no-deps", built[1]]
        lent = [path for path in sys.path if path.endswith("site-packages")]
        next(folder.glob("lib/*/site-packages")).joinpath("lent.pth").write_text("\n".join(lent))
    subprocess.run([*pip, *wanted], check=True)

    def command(name, *arguments):
        line = [folder / "bin" / name, *map(str, arguments)]
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        ran = subprocess.run(line, capture_output=True, text=True, cwd=folder, env=env)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return command


@pytest.fixture(scope="module")
def model(run, tmp_path_factory):
    """A narrow network that the installed command has exported."""
    folder = tmp_path_factory.mktemp("export") / "model"
    told = run("salema-export", "--weights", "seeded:16", "--imgsz", 64, 96, "-o", folder, "--json")
    assert json.loads(told)["paths"] == [str(folder / "model.onnx")]
    return folder


def test_the_wheel_holds_every_file_of_the_packages_but_studies_and_results(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    ours = {name for name in names if not name.startswith("salema-")}
    assert ours == {f"salema/{name}" for name in packaged()}
    assert "salema/export/weights/shipped/nano.safetensors" in ours
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_source_distribution_holds_the_same_and_no_tests(built):
    with tarfile.open(built[0]) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    ours = {name for name in names if "/" in name and not name.startswith("salema.egg-info/")}
    assert ours == packaged()
    assert {"LICENSE", "README.md", "pyproject.toml"} < names


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(run, name):
    assert f"Usage: {name} [OPTIONS]" in run(name, "--help")


def test_sources_of_the_kernels_and_published_scores_are_read_from_the_environment(run):
    code = """
import sys
from salema.benchmarks.scores.published import published_videos
from salema.kernels.compile import SOURCES
assert SOURCES.is_relative_to(sys.prefix), SOURCES
print(len(published_videos()), *sorted(path.name for path in SOURCES.iterdir() if path.read_text("utf-8")))
"""
    sources = sorted(path.name for path in (ROOT / "kernels/csrc").iterdir())
    assert run("python", "-c", code).split() == ["100", *sources]


def test_the_installed_commands_run_a_clip(run, model, small_clip, tmp_path):
    told = run("salema-run", small_clip, "--model", model, "-o", tmp_path / "out.mp4", "--maps", tmp_path, "--json")
    assert json.loads(told)["frames"] == 12
    assert cv2.imread(str(tmp_path / "0012.png"), cv2.IMREAD_UNCHANGED).shape == (64, 96)
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 12


def test_the_installed_commands_run_and_score_a_dataset(run, model, tmp_path):
    data = write_dataset(tmp_path / "data", "DHF1K")
    run("salema-run", "--dataset", "DHF1K", "--src", data.source, "--dst", tmp_path / "maps", "--model", model)
    scores = tmp_path / "scores.json"
    run("salema-eval", "--pred", tmp_path / "maps", "--gt", data.truth, "--dataset", "DHF1K", "--json", scores)
    assert [model["frames"] for model in json.loads(scores.read_text("utf-8"))["models"]] == [12]
