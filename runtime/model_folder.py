"""The contents of an exported model's folder, listed once for all code that opens the model."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from salema.runtime.errors import ModelError, UsageError
from salema.runtime.gpu.trt_library import Kind
from salema.runtime.spec import PARTS

MODEL_FILE = "model.onnx"
PART_FILES = ("encoder.onnx", "decoder.onnx")
NCNN_FILES = ("model.ncnn.param", "model.ncnn.bin")
"""For other programs. The session for ncnn reads the ONNX file."""


@dataclass(frozen=True)
class ModelFolder:
    """A folder that `salema-export` wrote, its files' names, and what the user named: it, or a file in it."""

    named: Path
    folder: Path
    names: frozenset[str]

    @property
    def is_model(self) -> bool:
        """Whether the user named a model by its folder, or by a file that engines are built from."""
        return self.named == self.folder or self.named.name in {MODEL_FILE, *PART_FILES}

    @property
    def is_engine(self) -> bool:
        """Whether the user named an engine."""
        return self.named != self.folder and self.named.suffix == ".engine"

    @property
    def is_split(self) -> bool:
        """Whether the model's ONNX files are an encoder and a decoder."""
        if self.named == self.folder:
            return MODEL_FILE not in self.names and PART_FILES[0] in self.names
        return self.named.name in PART_FILES

    def has_engine(self, kind: Kind) -> bool:
        """Whether the folder holds a library's engine of the model, or of its encoder."""
        return any(kind.engine_name(part) in self.names for part in ("model", "encoder"))

    @property
    def sources(self) -> tuple[Path, ...]:
        """The ONNX files, which define what the model computes. Engines are built from them."""
        if self.named.suffix == ".onnx" and not self.is_model:
            return (self.named,)
        return tuple(self.folder / name for name in (MODEL_FILE, *PART_FILES) if name in self.names)

    def onnx_files(self) -> tuple[Path, ...]:
        """Returns the ONNX file of a whole step; of a split model two files, encoder and decoder.

        Raises:
            ModelError: a file is missing.
        """
        if self.is_split:
            for name in PART_FILES:
                if name not in self.names:
                    file = self.folder / name
                    raise ModelError(f"{file}: missing, and it is half of a split model; export it again with --split")
            return tuple(self.folder / name for name in PART_FILES)
        model = self.folder / MODEL_FILE if self.named == self.folder else self.named
        if not model.is_file():
            raise _no_model(model, self.folder)
        return (model,)

    def engines(self, kind: Kind) -> tuple[Path, ...]:
        """Returns a library's engine of the model, or the engine that the user named.

        Returns:
            One engine; of a split model two engines, encoder and decoder.

        Raises:
            ModelError: an engine has not been built.
            UsageError: the path names another kind of file.
        """
        parts = [kind.engine_name(part) for part in PARTS[1:]]
        if not self.is_model and self.named.name not in parts:
            if not self.is_engine:
                raise UsageError(
                    f"{self.named}: not an engine; name the folder that salema-export wrote, or a .engine file in it"
                )
            return (self.named,)
        split = kind.engine_file not in self.names and PART_FILES[0] in self.names
        for name in (wanted := parts if split else [kind.engine_file]):
            if name not in self.names:
                command = kind.command(self.folder)
                raise ModelError(f"{self.folder / name}: no {kind.title} engine yet; build it here with: {command}")
        return tuple(self.folder / name for name in wanted)


def look_up(path: str | Path) -> ModelFolder:
    """Lists what is in a folder that `salema-export` wrote; `path` is the folder, or a file in it.

    Raises:
        ModelError: the path does not exist.
        OSError: the folder can't be read.
    """
    named = Path(path)
    folder = named if named.is_dir() else named.parent
    if not named.exists():
        raise _no_model(named, folder if named.suffix in {".onnx", ".engine"} else named)
    return ModelFolder(named, folder, frozenset(entry.name for entry in folder.iterdir() if entry.is_file()))


def _no_model(missing: Path, folder: Path) -> ModelError:
    above = folder.parent / MODEL_FILE
    if above.is_file():  # as where the folder that --emit wrote is named
        return ModelError(f"{missing}: no such model; there is one in the folder above, {above}")
    command = f"salema-export --weights FILE -o {shlex.quote(str(folder))}"
    return ModelError(f"{missing}: no such model; make one with: {command}")
