"""`salema-train`: a dataset with gaze in, checkpoints out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salema.kernels.errors import installed
from salema.runtime.cli.options import takes_options
from salema.runtime.cli.start import run_app
from salema.runtime.closing import Closing
from salema.runtime.errors import exit_on_error
from salema.runtime.stopping import stop_requested
from salema.runtime.telling import show, tell
from salema.training.options import DataOptions, NetworkOptions, RunOptions
from salema.training.recipes import Recipe

if TYPE_CHECKING:
    from pathlib import Path

_LESS_MEMORY = {  # a run goes on with its own batch, clips and size only
    False: "use a smaller --batch, --clip-frames or --imgsz, or more --accumulate, or --precision bf16",
    True: "use more --accumulate, or --precision bf16",
}
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
@takes_options
def train(
    *,
    data: DataOptions,
    network: NetworkOptions,
    recipe: Annotated[
        str, typer.Option(help="paper (as published), or default; the options after it replace single choices.")
    ] = "default",
    given: Recipe,
    run: RunOptions,
) -> None:
    """Train SalEMA, SalGAN or SalCLSTM on videos or photographs with gaze; resumes where it was killed."""
    with exit_on_error("salema-train", _LESS_MEMORY[run.resume]):
        folder = _train(recipe, given, data, network, run)
        if folder is not None:
            show(f"{folder}")


def _train(recipe: str, given: Recipe, data: DataOptions, network: NetworkOptions, run: RunOptions) -> Path | None:
    with installed("pip install 'salema[train]'"):
        from salema.training.run import Request
        from salema.training.run import train as train_network
    with stop_requested() as stop, Bar() as bar:
        try:
            return train_network(Request(recipe, given, data, network, run), bar.say, bar, stop)
        except KeyboardInterrupt:
            tell(f"salema-train: stopped; go on with --resume -o {run.output}")
            raise


class Bar(Closing):
    """A progress bar over the steps of an epoch; none where stderr is no terminal."""

    def __init__(self) -> None:
        self._bar: Any = None

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()

    def begun(self, epoch: int, steps: int, done: int) -> None:
        """Begins an epoch."""
        if not (sys.stderr and sys.stderr.isatty()):
            return
        from tqdm import tqdm

        self.close()
        self._bar = tqdm(total=steps, initial=done, unit=" steps", desc=f"epoch {epoch}", leave=False)

    def advance(self, loss: float) -> None:
        """Counts a step."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            self._bar.update()

    def say(self, sentence: str) -> None:
        """Says something while the bar is there."""
        if self._bar is not None:
            self._bar.clear()
        tell(sentence)


def main() -> None:
    """Runs the command."""
    run_app(app, "salema-train")


if __name__ == "__main__":  # for torchrun and accelerate, which start modules
    main()
