"""The model card of a run: what was trained on what, how, and how well it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from salema.benchmarks.machine.environment import describe_environment
from salema.runtime.files.whole_files import sha256_of, write_bytes
from salema.runtime.wording import counted
from salema.training.log import read_log
from salema.training.state import BEST, LAST
from salema.training.trainer import Task

CARD = "README.md"


def write_card(folder: Path, settings: dict[str, Any], task: Task, ran: str) -> None:
    """Writes the card of a run that has ended; `ran` says on what, and how.

    Raises:
        OutputError: it can't be written.
    """
    scored = [record for record in read_log(folder) if "scores" in record]
    held_out = len(task.held_out.names) if task.held_out else 0
    noun, some = "photograph", ""
    if not task.gaze.are_photographs:
        noun, some = "video", f", frames scored: one in {task.options.score_every}"
    lines = [
        f"# {task.architecture.name}, trained on {task.gaze.name}",
        "",
        f"- Data: {task.gaze.name}, {counted(len(task.gaze.names), noun)}; validated on {held_out} others{some}.",
        f"- Recipe: {settings['recipe']}, seed {settings['seed']}.",
        f"- Machine: {_machine()}.",
        f"- Run: {ran}.",
        "- Weights: " + ", ".join(f"`{name}` (SHA-256 {sha256_of(folder / name)})" for name in _kept(folder)) + ".",
        f"- Export: `salema-export --weights {_kept(folder)[-1]}`.",
        "",
        "Scores on what it was not trained on, by `salema-eval`'s metrics, protocol `exact`, mean over videos.",
        "The best checkpoint has the greatest NSS of these (at full size, if any are), so its own scores flatter it.",
        "",
        *_table(scored),
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in settings.items()),
    ]
    write_bytes(folder / CARD, ("\n".join(lines) + "\n").encode())


def _kept(folder: Path) -> list[str]:
    return [name for name in (LAST, BEST) if (folder / name).is_file()]


def _table(scored: list[dict[str, Any]]) -> list[str]:
    if not scored:
        return ["None were taken."]
    names = list(scored[0]["scores"])
    rows = []
    for record in scored:
        scores = [record["scores"][name] for name in names]
        size = "x".join(map(str, record.get("size", [])))  # runs begun before did not write it
        cells = [str(record["epoch"]), size, *("" if v is None else f"{v:.4f}" for v in scores)]
        rows.append(f"| {' | '.join(cells)} |")
    return [f"| epoch | size | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|", *rows]


def _machine() -> str:
    facts = describe_environment()
    parts = (
        facts["cpu"],
        f"commit {facts['commit']}",
        *(f"{name} {version}" for name, version in facts["versions"].items() if version),
    )
    return ", ".join(str(part) for part in parts)
