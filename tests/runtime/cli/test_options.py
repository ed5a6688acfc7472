from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from salema.runtime.cli.options import refuse_others, takes_options, typed_options
from salema.runtime.errors import UsageError


@dataclass(frozen=True)
class Size:
    unit: str = "px"
    size_hw: Annotated[tuple[int, int], typer.Option("--size")] = (4, 6)
    layers: Annotated[tuple[int, ...], typer.Option("--layer")] = ()
    folded: Annotated[bool | None, typer.Option("--folded/--not-folded")] = None


def run(*arguments):
    """Runs a command that takes `Size` between two options of its own; gives what it took."""
    took = []
    app = typer.Typer(add_completion=False)

    @app.command()
    @takes_options
    def command(
        context: typer.Context,
        name: Annotated[str, typer.Option()] = "a",
        *,
        size: Size,
        last: Annotated[int, typer.Option()] = 1,
    ) -> None:
        """Does it."""
        took.append((name, size, last, typed_options(context)))
        refuse_others(context, {"name", "size_hw", "layers"}, "not here")

    app([*map(str, arguments)], standalone_mode=False)
    return took[0]


def test_fields_with_a_typer_option_are_options_and_the_others_keep_their_defaults():
    assert run() == ("a", Size(), 1, {})
    name, size, last, typed = run("--layer", 3, "--size", 1, 2, "--layer", 3, "--name", "b")
    assert (name, size, last) == ("b", Size(size_hw=(1, 2), layers=(3, 3)), 1)
    assert typed == {"name": "--name", "size_hw": "--size", "layers": "--layer"}
    with pytest.raises(Exception, match="No such option.*--unit"):
        run("--unit", "mm")


def test_other_options_are_refused_as_they_were_typed():
    with pytest.raises(UsageError, match="^--not-folded and --last: not here; leave them out$"):
        run("--last", 2, "--not-folded")
    with pytest.raises(UsageError, match="^--folded: not here; leave it out$"):
        run("--folded")
