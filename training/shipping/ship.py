"""Makes a run's best checkpoint the weights that ship: FP16 safetensors in export/weights/shipped/.

Usage: python -m salema.training.shipping.ship RUN NAME
"""

from __future__ import annotations

import sys
from pathlib import Path

from salema.export.weights.architecture import choose_architecture
from salema.export.weights.checkpoint_files import save_safetensors
from salema.export.weights.checkpoints import SHIPPED, load_checkpoint
from salema.runtime.errors import CheckpointError, UsageError, exit_on_error
from salema.runtime.files.whole_files import make_folder
from salema.runtime.wording import listed
from salema.training.state import BEST


def ship(run: Path, name: str, folder: Path = SHIPPED) -> Path:
    """Writes a run's best checkpoint as `NAME.safetensors`: weights in FP16, a learned alpha in FP32 as it is.

    Raises:
        UsageError: the name is no bare word.
        CheckpointError: the run has no best checkpoint, or a weight is too large for FP16.
        OutputError: the file can't be written.
    """
    if not name.isidentifier() or name == "seeded":
        raise UsageError(f"{name}: no name for shipped weights; give a word, such as nano")
    checkpoint = load_checkpoint(str(run / BEST))
    architecture, _ = choose_architecture(checkpoint.kind, checkpoint.hint, "auto", (), None)
    # Bare keys, which the reader knows: they make the header 364 bytes shorter, and nano less than a megabyte.
    halves = {key.removeprefix("salgan."): value.half() for key, value in checkpoint.weights.items()}
    broken = [key for key, value in halves.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(f"{run / BEST}: {listed(broken)}: too large for FP16; train with more --weight-decay")
    make_folder(folder)
    path = folder / f"{name}.safetensors"
    save_safetensors(path, halves, checkpoint.learned_alpha, architecture, trained=True)
    return path


def main() -> None:
    """Runs the command."""
    with exit_on_error("ship"):
        if len(sys.argv) != 3:  # noqa: PLR2004 - itself, RUN, NAME
            raise UsageError("give the folder of a run and a name: python -m salema.training.shipping.ship RUN nano")
        path = ship(Path(sys.argv[1]), sys.argv[2])
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
