"""How every command starts: a wrong option is reported in one sentence, as any other error is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from itertools import zip_longest
from typing import cast

import typer

from salema.runtime.errors import exit_on_error
from salema.runtime.run.stage_threads import is_something_left
from salema.runtime.stopping import signals_taken
from salema.runtime.telling import tell

# click comes inside Typer (since 0.26) or as its dependency (before); only this class's name is public in both.
_ClickUsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run_app(app: typer.Typer, program: str, implied: Mapping[str, str] | None = None) -> None:
    """Runs a command on this process's arguments; always ends with SystemExit, with code 2 for a wrong option.

    `implied` holds, by option, the values of options that may go without one: Typer 0.28 knows no such options.
    """
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be Unicode
    with signals_taken(to_the_end=True):
        code = _run(app, program, _completed(sys.argv[1:], implied or {}))
    raise SystemExit(code if isinstance(code, int) else 0)


def run_process(main: Callable[[], None]) -> None:
    """Runs a command's `main`, and ends the process at once if a thread still hangs waiting for a camera or stream.

    Such a thread can't be ended, and OpenCV aborts if it wakes up while Python exits.
    """
    try:
        main()
    except SystemExit as end:
        if is_something_left():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        raise


def _completed(arguments: list[str], implied: Mapping[str, str]) -> list[str]:
    """Gives its implied value to each option that has none: that ends the command, or stands before another option."""
    whole = []
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue="-"):
        is_bare = argument in implied and following.startswith("-")
        whole.append(f"{argument}={implied[argument]}" if is_bare else argument)
    return whole


def _run(app: typer.Typer, program: str, arguments: list[str]) -> object:
    with exit_on_error(program):  # --help is printed before the command's own exit_on_error begins
        try:
            code = app(arguments, prog_name=program, standalone_mode=False)
        except _ClickUsageError as error:
            wrong = cast("typer.BadParameter", error)
            command = wrong.ctx.command_path if wrong.ctx else program
            message = " ".join(wrong.format_message().split()).rstrip(".")
            tell(f"{command}: {message[:1].lower()}{message[1:]}; see {command} --help")
            raise SystemExit(2) from None
        if sys.stdout is not None:
            sys.stdout.flush()
    return code
