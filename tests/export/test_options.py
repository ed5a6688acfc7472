import inspect
from dataclasses import fields

import pytest

from salema.export import cli
from salema.export.options import EngineOptions, ExportOptions, Request
from salema.runtime.errors import UsageError


def test_the_command_takes_every_field_but_the_precision_which_its_flags_choose():
    declared = {field.name for kind in (Request, ExportOptions, EngineOptions) for field in fields(kind)}
    own = {"context", "engine", "json_"}
    assert set(inspect.signature(cli.export).parameters) == declared - {"precision"} | own
    assert {field.name for field in fields(ExportOptions)} > cli._WITH_INT8


@pytest.mark.parametrize(("flags", "precision"), [({}, "fp32"), ({"fp16": True}, "fp16"), ({"int8": True}, "int8")])
def test_the_flag_names_the_precision(flags, precision):
    assert Request(**flags).precision == precision


def test_two_flags_are_refused():
    with pytest.raises(UsageError, match="^--fp16 --int8: give one of them$"):
        _ = Request(fp16=True, int8=True).precision
