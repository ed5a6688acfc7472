"""The page on training says what the recipes are."""

from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

from salema.training.recipes import RECIPES, Recipe

PAGE = Path(__file__).parents[2] / "docs/training.md"


def written(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def row(name):
    option = get_type_hints(Recipe, include_extras=True)[name].__metadata__[0]
    paper, default = (written(getattr(RECIPES[recipe], name)) for recipe in ("paper", "default"))
    return f"| `--{name.replace('_', '-')}` | {paper} | {default} | {option.help.rstrip('.')} |"


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_each_choice_of_the_recipes_is_in_the_table(name):
    assert row(name) in PAGE.read_text("utf-8")
