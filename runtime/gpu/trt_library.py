"""Imports TensorRT or TensorRT-RTX: the parts of their Python APIs that we use are the same.

Sources: TensorRT Python API 10.3 to 11.4, "Migrating from TensorRT 10.x to 11.x"; TensorRT-RTX 1.2 to 1.7.
TensorRT 11 dropped EXPLICIT_BATCH, FP16 and INT8 flags, calibrators and `platform_has_fast_fp16`: never use them.
"""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from salema.kernels.errors import explain
from salema.runtime.errors import BackendError, MissingDependencyError, SalemaError, reason

T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """One of the two libraries: its name in `--backend` and `--engine`, and that for people.

    `least_version` is the oldest that works, major and minor; `engine_suffix` is how the names of its engine files end.
    """

    backend: str
    title: str
    module: str
    least_version: tuple[int, int]
    engine_suffix: str
    install: str

    @property
    def engine_file(self) -> str:
        """Name of the engine of a whole step in a model's folder."""
        return self.engine_name("model")

    def engine_name(self, part: str) -> str:
        """Returns the name of the engine of a part, see `ModelSpec.part`."""
        return f"{part}{self.engine_suffix}"

    def command(self, folder: Path | str) -> str:
        """Returns the command that builds this library's engine from an exported folder."""
        return f"salema-export --from {shlex.quote(str(folder))} --engine {self.backend}"


TENSORRT = Kind(
    "tensorrt",
    "TensorRT",
    "tensorrt",
    (10, 3),
    ".engine",
    "pip install 'salema[tensorrt]' (on Jetson it comes with JetPack: use a virtual environment made with"
    " --system-site-packages, and pip install 'salema[cuda]')",
)
TENSORRT_RTX = Kind(
    "tensorrt-rtx",
    "TensorRT-RTX",
    "tensorrt_rtx",
    (1, 2),
    ".rtx.engine",
    "pip install tensorrt-rtx (to run engines too: pip install 'salema[tensorrt-rtx]')",
)
RTX_TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
"""The targets of TensorRT-RTX 1.7. It can't build for Orin (sm87), Hopper (sm90) and Thor (sm110)."""
KINDS = {kind.backend: kind for kind in (TENSORRT, TENSORRT_RTX)}


def kind_of(engine_name: str) -> Kind:
    """Returns the library of an engine, by the engine's file name."""
    return TENSORRT_RTX if engine_name.endswith(TENSORRT_RTX.engine_suffix) else TENSORRT


@dataclass(frozen=True)
class Library:
    """An imported library: its module, a logger that keeps its errors, and its version."""

    kind: Kind
    trt: Any
    logger: Any
    version: str

    @contextmanager
    def told(self, doing: str) -> Iterator[None]:
        """Turns the library's exceptions into a `BackendError` of one sentence."""
        self.logger.messages.clear()
        try:
            yield
        except SalemaError:
            raise
        except (RuntimeError, TypeError, ValueError, AttributeError, MemoryError) as error:
            raise self.error(doing, reason(error)) from error

    def must(self, result: T | None, doing: str) -> T:
        """Returns the result of a call of the library; raises if it is False or None, which mean failure."""
        if result is None or result is False:
            raise self.error(doing)
        return result

    def error(self, doing: str, text: str = "no reason given") -> BackendError:
        """Returns the error for a call that failed, with the errors that the library logged."""
        messages = " / ".join(reversed(self.logger.messages)) or text  # the last one first: it is the most telling
        self.logger.messages.clear()
        return BackendError(f"{self.kind.title} {self.version}: {doing} failed: {explain(messages)}")


def load_library(kind: Kind) -> Library:
    """Imports TensorRT or TensorRT-RTX.

    Raises:
        MissingDependencyError: it is not installed, or too old.
    """
    try:
        trt = importlib.import_module(kind.module)
        version = str(trt.__version__)
        old = tuple(int(part) for part in version.split(".")[:2]) < kind.least_version
        logger = None if old else _logger_for(trt)
    except Exception as error:  # it is missing, a stub, or another module of that name
        raise MissingDependencyError(
            f"{kind.title} can't be imported ({reason(error)}); install it with: {kind.install}"
        ) from error
    if old:
        least = ".".join(map(str, kind.least_version))
        raise MissingDependencyError(
            f"{kind.title} {version} is too old, {least} is the oldest that works; upgrade it with: {kind.install}"
        )
    return Library(kind, trt, logger, version)


@cache
def _logger_for(trt: Any) -> Any:
    """Returns a library's only logger: TensorRT ignores a second one while the first is in use."""

    class Logger(trt.ILogger):  # type: ignore[misc] # the base is known at run time only
        """Keeps errors for our own messages. TensorRT's warnings are dropped, so they don't reach the terminal."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in {trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR}:
                self.messages.append(message)

    return Logger()
