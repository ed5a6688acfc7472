"""The checkpoint behind an exported model, in PyTorch: peers are made from it, and it gives the true maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from salema.export.weights.architecture import Architecture
from salema.export.weights.checkpoints import Checkpoint, load_checkpoint, shipped_names
from salema.runtime.errors import UsageError
from salema.runtime.spec import ModelSpec


@dataclass(frozen=True)
class Network:
    """Weights, their variant, and the spec of a plain float32 export of them."""

    checkpoint: Checkpoint
    architecture: Architecture
    spec: ModelSpec

    def spec_for(self, batch: int) -> ModelSpec:
        """Returns the spec of an export for `batch` streams."""
        return replace(self.spec, batch=batch)

    def save_onnx(self, path: Path, batch: int) -> None:
        """Writes the network as float32 ONNX, without any rewrite."""
        import onnx  # noqa: PLC0415 - not every peer needs these
        import torch  # noqa: PLC0415

        from salema.export.graph.models import SaliencyStep  # noqa: PLC0415
        from salema.export.graph.to_onnx import to_onnx  # noqa: PLC0415

        step = SaliencyStep(self.architecture, self.checkpoint.weights, torch.float32)
        onnx.save(to_onnx(step, self.spec_for(batch)), path)


@contextmanager
def exporting(weights: str, target: str) -> Iterator[Callable[[tuple[int, int]], Path]]:
    """Yields a function that exports for frames of a size `(H, W)`, with a free batch, to a temporary folder.

    Both arguments are as `salema-export` takes them, `target` as its `--for`.
    """
    from salema.export.exporter import export_model  # noqa: PLC0415 - takes seconds to import
    from salema.export.options import ExportOptions  # noqa: PLC0415 - imports Typer

    with TemporaryDirectory() as name:

        def export(size_hw: tuple[int, int]) -> Path:
            folder = Path(name) / "x".join(map(str, size_hw))
            export_model(weights, folder, ExportOptions(imgsz_hw=size_hw, batch=None, for_=target), lambda _: None)
            return folder

        yield export


def needs_weights(spec: ModelSpec) -> bool:
    """Whether a model's checkpoint must be given: it is neither seeded nor one of those that ship."""
    return spec.trained and spec.weights not in shipped_names()


def load_network(spec: ModelSpec, weights: str | None) -> Network:
    """Loads the checkpoint that a model was exported from.

    `weights` is as `salema-export` takes it; not needed for seeded weights, nor for those that ship.

    Raises:
        UsageError: `weights` is missing, or another checkpoint.
        CheckpointError: it can't be read.
    """
    if weights is None and needs_weights(spec):
        raise UsageError(
            f"--compare: peers need the checkpoint that the model was exported from, {spec.weights} (SHA-256"
            f" {spec.weights_sha256[:12]}...); give it with --weights FILE"
        )
    architecture = Architecture.named(spec.architecture, plain_recurrence=spec.plain_recurrence)
    checkpoint = load_checkpoint(weights or spec.weights, architecture.kind)
    if checkpoint.sha256 != spec.weights_sha256:
        raise UsageError(
            f"--weights {weights or spec.weights}: SHA-256 {checkpoint.sha256[:12]}..., and the model was exported from"
            f" {spec.weights}, {spec.weights_sha256[:12]}...; give that one"
        )
    return Network(checkpoint, architecture, replace(spec.whole, precision="fp32", rewrites=()))
