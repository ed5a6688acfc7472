"""The documentation's commands do what it says: taken from its text, and run on small files of the names that it uses.

A block that can't run says why in a comment before it, `<!-- not run: reason -->`. Its options are looked up.
"""

import importlib
import re
import shlex
import shutil
from importlib.metadata import entry_points, metadata
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from int8_model import SIZE_HW
from synthetic import write_dataset
from videos import write_clip

from salema.benchmarks.gpu.check import main as gpu_check
from salema.export.exporter import export_model
from salema.export.options import ExportOptions
from salema.export.weights.seeded import moving_disc, seeded_state_dict

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?m)^(?:<!-- not run: (?P<why>.+) -->\n)?```(?P<language>\w+)\n(?P<text>(?s:.*?))^```$")
OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")
COMMANDS = [entry.name for entry in entry_points(group="console_scripts") if entry.module.startswith("salema.")]
SUBCOMMANDS = {"salema-bench": ("report", "cost"), "salema-eval": ("pack",)}
# What makes a command a small one; after 0.01 s each case has its least number of steps.
SMALL = {"salema-export": ("--imgsz", *map(str, SIZE_HW)), "salema-bench": ("--duration", "0.01")}
REASONS = {
    "needs DHF1K's 300 test videos",
    "needs DeepStream",
    "needs Triton",
    "needs a GPU",
    "needs a Jetson",
    "needs a Ray cluster",
    "needs a camera or a stream",
    "needs a container builder",
    "needs a camera, a stream or FFmpeg",
    "serves until it is stopped",
    "sets up a virtual environment",
    "takes half an hour",
    "takes hours",
    "takes minutes",
}


class Block(NamedTuple):
    where: str
    language: str
    text: str
    why: str | None  # it is not run

    @property
    def commands(self):
        """The words of each command of a shell block."""
        for line in self.text.splitlines():
            words = []
            for word in [*shlex.split(line, comments=True), "|"]:
                if word not in {"|", "&&"}:
                    words.append(word)
                elif words:
                    yield words
                    words = []


def blocks(*languages):
    """A parameter for each block of these languages in the documentation."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in BLOCK.finditer(text):
            where = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start('language')) + 1}"
            if match["language"] in languages:
                block = Block(where, match["language"], match["text"], match["why"])
                yield pytest.param(block, id=where)


SHELL = list(blocks("sh", "bash", "console"))
PYTHON = list(blocks("python"))


def run_words(cli, words):
    (entry,) = entry_points(group="console_scripts", name=words[0])
    return cli(importlib.import_module(entry.module).main, *words[1:])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, exported):
    """A folder with a small file or folder of each name that the pages use."""
    folder = tmp_path_factory.mktemp("docs")
    state = {key: torch.from_numpy(array) for key, array in seeded_state_dict("salema", 4).items()}
    torch.save({"state_dict": state}, folder / "SalEMA30.pt")
    for name in ("videos", "frames", "out"):
        (folder / name).mkdir()
    disc = moving_disc(96, *SIZE_HW)
    write_clip(folder / "video.mp4", disc, audio="aac")
    shutil.copy(folder / "video.mp4", folder / "videos")
    for index, image in enumerate(disc[:4]):
        cv2.imwrite(str(folder / f"frames/{index}.png"), image)
    dataset = write_dataset(folder / "DHF1K", "DHF1K", first_video=601)
    for video in dataset.videos:
        shutil.copytree(dataset.truth / video / "maps", folder / "predictions" / video)
    export_model(str(folder / "SalEMA30.pt"), folder / "salema-model", ExportOptions(imgsz_hw=SIZE_HW), lambda _: None)
    models = {
        "fp32": {},
        "whole": {},
        "fp16": {"precision": "fp16"},
        "split": {"split": True},
        "dynamic": {"batch": None},
    }
    for name, options in models.items():
        shutil.copytree(exported(**options), folder / name)
    return folder


@pytest.fixture(scope="module")
def helps():
    return {}


@pytest.fixture(scope="module")
def done():
    """Commands that ran: a command that stands on two pages runs once."""
    return []


@pytest.fixture
def options_of(cli, helps):
    """Returns the options that a command's --help shows, and its subcommands'."""

    def options(command, *subcommands):
        names = [(command,), *((command, name) for name in subcommands)]
        for name in names:
            if name not in helps:
                helps[name] = set(OPTION.findall(run_words(cli, [*name, "--help"]).out))
        return set().union(*(helps[name] for name in names))

    return options


@pytest.mark.parametrize("block", SHELL)
def test_each_option_target_and_extra_exists(block, options_of):
    assert block.why is None or block.why in REASONS
    for command, *words in block.commands:
        options = {word.split("=")[0] for word in words if OPTION.match(word)}
        if command in COMMANDS:
            assert options <= options_of(command, *(name for name in words[:1] if name in SUBCOMMANDS.get(command, ())))
        elif command == "make":
            (targets,) = re.findall(r"(?m)^\.PHONY: (.+)$", (ROOT / "Makefile").read_text("utf-8"))
            assert words[0] in targets.split()
        elif command == "pip":
            extras = set(re.findall(r"\w[\w-]*", re.findall(r"\[(.*)\]", words[-1])[0]))
            assert extras <= set(metadata("salema").get_all("Provides-Extra"))


def test_the_text_names_only_options_that_there_are(options_of, cli):
    known = set().union(*(options_of(name, *SUBCOMMANDS.get(name, ())) for name in COMMANDS))
    known |= set(OPTION.findall(cli(gpu_check, "--help").out))  # what ARGS takes in `make gpu-check`
    for page in PAGES:
        for code in re.findall(r"`[^`\n]+`", page.read_text("utf-8")):
            options = {option for option in OPTION.findall(code) if option.startswith("--")}
            assert options <= known, f"{page.name}: {code}"


@pytest.mark.parametrize("block", [param for param in SHELL if not param.values[0].why])
def test_each_command_runs(block, cli, workspace, done, monkeypatch):
    monkeypatch.chdir(workspace)
    for words in block.commands:
        if words[0] not in COMMANDS:
            assert words[:2] == ["pip", "install"]  # not run: its extras are looked up above
        elif words not in done:
            takes_size = words[1:2] != ["report"] and "--from" not in words
            ran = run_words(cli, [*words, *(SMALL.get(words[0], ()) if takes_size else ())])
            assert ran.code == 0 or "--against" in words, ran.err  # such short cases may well be slower than before
            done.append(words)


@pytest.mark.parametrize("block", PYTHON)
def test_each_program_runs(block, workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    scope = {"frame_bgr": np.zeros((90, 160, 3), np.uint8)}
    exec(block.text, scope)
    assert scope["saliency"].dtype == np.float32
    assert scope["saliency"].shape in {SIZE_HW, (64, 96)}  # the second is that of `exported`
