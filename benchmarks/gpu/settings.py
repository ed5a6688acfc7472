"""What a run of `make gpu-check` is asked for, and the JSON file that each of its stages leaves."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from salema.runtime.files.whole_files import write_bytes

STAGES = ("tests", "kernels", "bench", "parity", "sanitizers")
"""By the worth of their results: the first are not lost if the time on a GPU ends."""
PRECISIONS = ("fp16", "fp32")
_MARGIN_S = 10  # in which a stage writes what it has, before it is killed


@dataclass(frozen=True)
class Settings:
    """A run's options; see `check`.

    Attributes:
        models: a folder for exports that the stages share.
        crashed: what processes of this stage were at (see `Stage.begin`) when they crashed, and how; it is left out.
    """

    out: Path
    models: Path
    weights: str
    frames: int
    rounds: int
    device: str
    imgsz_hw: tuple[int, int]
    seconds: float
    stage_s: float
    crashed: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Returns the options as JSON, for `from_json`."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Reads what `to_json` wrote."""
        values = json.loads(text)
        paths = {name: Path(values[name]) for name in ("out", "models")}
        return cls(**values | paths | {"imgsz_hw": tuple(values["imgsz_hw"])})


class Stage:
    """A stage's results, written to `<stage>.json` anew after each step: a later failure loses nothing."""

    def __init__(self, name: str, settings: Settings, environment: dict[str, Any]) -> None:
        """Begins the file; what an earlier run left there is gone."""
        self.settings = settings
        self._file = settings.out / f"{name}.json"
        self._record: dict[str, Any] = {"stage": name, "settings": json.loads(settings.to_json())}
        self._started_s = time.monotonic()
        self.keep(environment=environment, ok=None)

    def keep(self, **values: object) -> None:
        """Adds results, and writes them; the stage is over once `ok` is not None."""
        self._record |= values | {"stage_s": round(time.monotonic() - self._started_s, 1)}
        write_bytes(self._file, json.dumps(self._record, indent=1, default=str).encode())

    def begin(self, what: str) -> str | None:
        """Notes what comes now, in case it takes the process with it; returns how it did before, if it did."""
        self.keep(at=what)
        return self.settings.crashed.get(what)

    @property
    def left_s(self) -> float:
        """How long the stage may go on."""
        return self.settings.stage_s - _MARGIN_S - (time.monotonic() - self._started_s)
