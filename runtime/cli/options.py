"""Takes a command's options from dataclasses, and tells which options the user has typed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from salema.runtime.errors import UsageError

BackendOption = Annotated[
    str,
    typer.Option(
        help="auto, tensorrt, tensorrt-rtx, onnxruntime, onnxruntime-tensorrt, ncnn, openvino or openvino-bf16."
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N for GPU number N.")]


def typed_options(context: typer.Context) -> dict[str, str]:
    """Returns the first long name of each option on the command line, by its parameter's name."""
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
    """Raises UsageError, with `why` as its reason, if the user has typed an option whose parameter isn't `taken`."""
    others = [option for name, option in typed_options(context).items() if name not in taken]
    if others:
        raise UsageError(f"{' and '.join(others)}: {why}; leave {'it' if len(others) == 1 else 'them'} out")


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorates a command that takes dataclasses, so that Typer sees their fields as options.

    A field is an option if its type is `Annotated`; any other field keeps its default. A field of type `tuple[X, ...]`
    is an option that can be repeated. The command must take all arguments by name.
    """
    parameters: list[Parameter] = []
    groups: dict[str, tuple[type[Any], list[str]]] = {}
    for name, parameter in signature(command, eval_str=True).parameters.items():
        kind = parameter.annotation
        if isinstance(kind, type) and is_dataclass(kind):
            options = _options_of(kind)
            groups[name] = kind, [option.name for option in options]
            parameters += options
        else:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))

    def run(**values: Any) -> None:
        for name, (kind, options) in groups.items():
            given = {option: values.pop(option) for option in options}
            lists = {option: tuple(value) for option, value in given.items() if isinstance(value, list)}
            values[name] = kind(**{**given, **lists})
        command(**values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined] # functions may have one: PEP 362
    return run


def _options_of(kind: type[Any]) -> list[Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    options = []
    for field in fields(kind):
        hint = hints[field.name]
        if get_origin(hint) is not Annotated:
            continue
        value, option = get_args(hint)
        item, *rest = get_args(value) or (value,)
        if rest == [...]:  # what Typer calls a list
            hint = Annotated[list[item], option]  # type: ignore[valid-type] # known only at run time
        options.append(Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hint))
    return options
