"""Which options a user has typed, and under which names: for commands that do one thing or another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from salema.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

    import typer


def typed_options(context: typer.Context) -> dict[str, str]:
    """Returns the options on the command line, by their parameters' names: each under its first long name."""
    typed = {}
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if parameter.param_type_name == "option" and source is not None and source.name == "COMMANDLINE":
            is_off = parameter.secondary_opts and not context.params[name]
            options = parameter.secondary_opts if is_off else parameter.opts
            typed[name] = next(option for option in options if option.startswith("--"))
    return typed


def refuse_others(context: typer.Context, taken: Collection[str], why: str) -> None:
    """Refuses every option that is not among those that are taken.

    Args:
        context: of the command.
        taken: names of parameters.
        why: in words, such as `not for --dataset`.

    Raises:
        UsageError: another one was typed.
    """
    others = [option for name, option in typed_options(context).items() if name not in taken]
    if others:
        raise UsageError(f"{' and '.join(others)}: {why}; leave {'it' if len(others) == 1 else 'them'} out")
