"""Makes a run's best checkpoint the weights that ship: safetensors in export/weights/shipped/, in FP16 or in 8 bits.

Usage: python -m salema.training.shipping.ship RUN NAME [--eight-bits]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from salema.export.weights.architecture import choose_architecture
from salema.export.weights.checkpoint_files import save_safetensors
from salema.export.weights.checkpoints import SHIPPED, load_checkpoint
from salema.export.weights.eight_bits import packed
from salema.runtime.errors import CheckpointError, UsageError, exit_on_error
from salema.runtime.files.whole_files import make_folder
from salema.runtime.wording import listed
from salema.training.state import BEST


def ship(run: Path, name: str, folder: Path = SHIPPED, *, eight_bits: bool = False) -> Path:
    """Writes a run's best checkpoint as `NAME.safetensors`, a learned alpha in FP32 as it is.

    With `eight_bits` weights are stored as `export/weights/eight_bits.py` says, else in FP16.

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
    bare = {key.removeprefix("salgan."): value for key, value in checkpoint.weights.items()}
    stored = packed(bare) if eight_bits else {key: value.half() for key, value in bare.items()}
    broken = [key for key, value in stored.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(f"{run / BEST}: {listed(broken)}: too large for FP16; train with more --weight-decay")
    make_folder(folder)
    path = folder / f"{name}.safetensors"
    save_safetensors(path, stored, checkpoint.learned_alpha, architecture, trained=True)
    return path


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("name", help="of the weights, such as nano")
    parser.add_argument("--eight-bits", action="store_true", help="store weights in 8 bits")
    given = parser.parse_args()
    with exit_on_error("ship"):
        path = ship(given.run, given.name, eight_bits=given.eight_bits)
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
