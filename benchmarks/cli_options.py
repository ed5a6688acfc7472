"""Checks of options that the commands of this package share."""

from __future__ import annotations

import typer

from salema.runtime.cli.options import typed_options
from salema.runtime.errors import UsageError


def refuse_before_command(context: typer.Context) -> None:
    """Refuses options before the name of a sub-command, which would ignore them.

    Raises:
        UsageError: an option stands there.
    """
    for option in typed_options(context).values():
        raise UsageError(f"{option} stands before {context.invoked_subcommand}, where it means nothing; put it after")
