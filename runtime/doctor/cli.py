"""`salema-doctor`: tells what works on this machine, and how to install what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salema.runtime.cli.start import run_app
from salema.runtime.errors import exit_on_error
from salema.runtime.telling import show

if TYPE_CHECKING:
    from salema.runtime.doctor.report import Backend, Report

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
_INDENT = " " * 11


@app.command()
def doctor(
    model: Annotated[
        Path | None,
        typer.Option(help="Folder that salema-export wrote: opened as --backend auto does.", readable=False),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Try what this machine has; print what each backend can do here, and how to install what is missing.

    The exit code is 1 if no backend can run, or if the model can't be opened.
    """
    with exit_on_error("salema-doctor"):
        from salema.runtime.doctor.report import examine

        report = examine(model)
        if json_:
            print(_as_json(report))
        else:
            show("\n".join(_as_text(report)))
    if not report.ok:
        raise SystemExit(1)


def _as_json(report: Report) -> str:
    sections = report.sections.items()
    findings = [{"section": name, **asdict(finding)} for name, findings in sections for finding in findings]
    backends = [asdict(backend) for backend in report.backends]
    return json.dumps({"findings": findings, "backends": backends, "auto": report.auto}, indent=1)


def _as_text(report: Report) -> Iterator[str]:
    for section, findings in report.sections.items():
        yield section
        width = max((len(finding.name) for finding in findings), default=0)
        for finding in findings:
            yield f"  {finding.state:<7}  {finding.name:<{width}}  {finding.detail}"
            if finding.advice:
                yield f"{_INDENT}-> {finding.advice}"
        yield ""
    yield "backends"
    for backend in report.backends:
        yield from _backend_text(backend)
    yield f"\nauto takes {report.auto}"


def _backend_text(backend: Backend) -> Iterator[str]:
    builds = {None: "", True: "can build engines", False: "can't build engines"}[backend.builds]
    facts = "; ".join(filter(None, (builds, backend.why)))
    can = "can run" if backend.runs else "can't run"
    yield f"  {can:<9}  {backend.name:<20}  {facts}".rstrip()
    for line in backend.advice:
        yield f"{_INDENT}-> {line}"


def main() -> None:
    """Runs the command."""
    run_app(app, "salema-doctor")
