"""How every command starts: a wrong option is reported in one sentence, as any other error is."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import cast

import typer

from salema.runtime.errors import exit_on_error
from salema.runtime.stopping import signals_taken
from salema.runtime.telling import tell

# click comes inside Typer (since 0.26) or as its dependency (before); only this class's name is public in both.
_ClickUsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run_app(app: typer.Typer, program: str) -> None:
    """Runs a command on this process's arguments; always ends with SystemExit, with code 2 for a wrong option."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be Unicode
    with signals_taken(to_the_end=True):
        code = _run(app, program)
    raise SystemExit(code if isinstance(code, int) else 0)


def _run(app: typer.Typer, program: str) -> object:
    with exit_on_error(program):  # --help is printed before the command's own exit_on_error begins
        try:
            code = app(prog_name=program, standalone_mode=False)
        except _ClickUsageError as error:
            wrong = cast("typer.BadParameter", error)
            command = wrong.ctx.command_path if wrong.ctx else program
            message = " ".join(wrong.format_message().split()).rstrip(".")
            tell(f"{command}: {message[:1].lower()}{message[1:]}; see {command} --help")
            raise SystemExit(2) from None
        if sys.stdout is not None:
            sys.stdout.flush()
    return code
