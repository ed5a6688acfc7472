"""Checks of options that the commands of this package share."""

from __future__ import annotations

import typer

from salema.runtime.errors import UsageError


def given(context: typer.Context, name: str) -> bool:
    """Whether the user gave this option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_before_command(context: typer.Context) -> None:
    """Refuses options before the name of a sub-command, which would ignore them.

    Raises:
        UsageError: an option stands there.
    """
    for name in context.params:
        if given(context, name):
            raise UsageError(
                f"--{name.strip('_')} stands before {context.invoked_subcommand}, where it means nothing; put it after"
            )
