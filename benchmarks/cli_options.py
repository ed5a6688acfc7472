"""What the commands of this package check of their options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from salema.runtime.errors import UsageError

if TYPE_CHECKING:
    import typer


def given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_before_command(context: typer.Context) -> None:
    """Refuses options before the name of a sub-command, which would take no notice of them.

    Raises:
        UsageError: there are some.
    """
    for name in context.params:
        if given(context, name):
            raise UsageError(
                f"--{name.strip('_')} stands before {context.invoked_subcommand}, where it means nothing; put it after"
            )
