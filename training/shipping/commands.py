"""What the measurements of shipped weights share: their arguments, and our own commands as a user starts them."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from salema.runtime.errors import SalemaError
from salema.training.data.choose import PHOTOGRAPHS, choose_data
from salema.training.data.clip import GazeSet
from salema.training.options import DataOptions


def parser_of(usage: str | None, *, of_photographs: bool = True) -> argparse.ArgumentParser:
    """Returns a parser that explains itself by a module's docstring, with `--src` for a folder of photographs."""
    parser = argparse.ArgumentParser(description=usage, formatter_class=argparse.RawDescriptionHelpFormatter)
    if of_photographs:
        parser.add_argument("--src", type=Path, required=True, help="folder of photographs, as salema-train takes it")
    return parser


def split(folder: Path) -> tuple[GazeSet, GazeSet]:
    """Opens the photographs that `salema-train` trains on, and those that it validates on."""
    trained, held_out = choose_data(DataOptions(dataset=PHOTOGRAPHS, src=folder), print)
    assert held_out is not None
    return trained, held_out


def run(command: str, *options: object) -> str:
    """Runs one of our commands, and returns what it printed on stdout.

    Raises:
        SalemaError: it failed; it has said why.
    """
    line = [str(Path(sys.executable).with_name(command)), *map(str, options)]
    done = subprocess.run(line, check=False, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own commands
    if done.returncode:
        raise SalemaError(f"{command} ended with code {done.returncode}; see what it said above")
    return done.stdout
