"""What an exported model says of itself: the contract between `salema-export` and every backend.

An ONNX file carries it as JSON under the metadata key `salema`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from salema.runtime.errors import ModelError, reason

SPEC_VERSION = 1
METADATA_KEY = "salema"


@dataclass(frozen=True)
class StateSpec:
    """One recurrent state, kept in float32 in every precision.

    The graph's tensors are `<name>_in` and `<name>_out`, both `[N, *shape_chw]`.
    """

    name: str
    shape_chw: tuple[int, int, int]


@dataclass(frozen=True)
class ModelSpec:
    """The facts of one exported single-step graph.

    Attributes:
        architecture: the published name, such as `SalEMA30R`.
        height: rows of `frame` and `saliency`, a multiple of 16.
        width: columns of `frame` and `saliency`, a multiple of 16.
        batch: independent streams per step, or None for any number.
        precision: `fp32` or `fp16`, of weights and compute; states and maps are float32 in both.
        states: the recurrent states in the graph's order; empty for SalGAN.
        coefficient: weight of the new frame in the EMA, in (0, 1]; None where there is no EMA (and no `mix` input).
        coefficient_source: how the coefficient was read, in words.
        weights: name of the checkpoint.
        weights_sha256: hash of the checkpoint file (of the tensors for seeded weights).
        trained: False for seeded weights, whose maps mean nothing.
        rewrites: names of the graph rewrites that were applied.
        salema_version: version that wrote the file.
        spec_version: version of this record.
    """

    architecture: str
    height: int
    width: int
    batch: int | None
    precision: str
    states: tuple[StateSpec, ...]
    coefficient: float | None
    coefficient_source: str
    weights: str
    weights_sha256: str
    trained: bool
    rewrites: tuple[str, ...]
    salema_version: str
    spec_version: int = SPEC_VERSION

    def __post_init__(self) -> None:
        sizes = (self.height, self.width, *(n for state in self.states for n in state.shape_chw))
        if not all(isinstance(n, int) and n > 0 for n in (*sizes, 1 if self.batch is None else self.batch)):
            raise ValueError("sizes must be whole numbers above 0")
        if self.coefficient is not None and not 0 < self.coefficient <= 1:
            raise ValueError("the coefficient must lie in (0, 1]")

    @property
    def tensor_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shape of every input and output by name; None where the batch is free."""
        n = self.batch
        shapes: dict[str, tuple[int | None, ...]] = {
            "frame": (n, self.height, self.width, 3),
            "saliency": (n, 1, self.height, self.width),
        }
        for state in self.states:
            shapes[f"{state.name}_in"] = shapes[f"{state.name}_out"] = (n, *state.shape_chw)
        if self.coefficient is not None:
            shapes["mix"] = (n,)
        return shapes

    @property
    def input_names(self) -> tuple[str, ...]:
        """The graph's inputs in order: `frame`, the states, then `mix` where there is an EMA."""
        mix = () if self.coefficient is None else ("mix",)
        return ("frame", *(f"{state.name}_in" for state in self.states), *mix)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The graph's outputs in order: `saliency`, then the states."""
        return ("saliency", *(f"{state.name}_out" for state in self.states))

    def to_json(self) -> str:
        """Returns the record as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, where: str) -> ModelSpec:
        """Reads what `to_json` wrote.

        Args:
            text: the JSON.
            where: the file it came from, for error messages.

        Raises:
            ModelError: the record is of a newer version, or incomplete.
        """
        try:
            record: dict[str, Any] = json.loads(text)
            version = int(record["spec_version"])
        except (ValueError, KeyError, TypeError, OverflowError):
            raise ModelError(f"{where}: its salema metadata can't be read; export the model again") from None
        if version > SPEC_VERSION:
            raise ModelError(
                f"{where}: written by salema {record.get('salema_version', '?')} in model format {version}, and this"
                f" version reads up to {SPEC_VERSION}; upgrade with: pip install -U salema"
            )
        expected = {field.name for field in fields(cls)}
        if expected != set(record):
            odd = ", ".join(sorted(expected ^ set(record)))
            raise ModelError(f"{where}: its salema metadata lacks or has unknown entries ({odd}); export it again")
        try:
            states = tuple(StateSpec(state["name"], tuple(state["shape_chw"])) for state in record["states"])
            return cls(**{**record, "states": states, "rewrites": tuple(record["rewrites"])})
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{where}: its salema metadata is damaged ({reason(error)}); export it again") from error
