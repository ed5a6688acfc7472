"""The facts of an exported model, which `salema-export` writes and every backend reads.

An ONNX file holds them as JSON under the metadata key `salema`.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from salema.runtime.errors import ModelError, NewerModelError, UsageError, reason

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Facts = TypeVar("Facts", bound="DataclassInstance")

SPEC_VERSION = 4
METADATA_KEY = "salema"
PARTS = ("model", "encoder", "decoder")
PRECISIONS = ("fp32", "fp16", "int8")
DEFAULT_FPS = 30.0  # DHF1K's, on which the published weights were trained
_LEAST_FPS, _MOST_FPS = 0.001, 1000.0
TRANSPOSED = "upsampling-transposed"  # the rewrite that makes OpenVINO faster


def check_fps(option: str, fps: float) -> None:
    """Refuses a rate that no video has.

    Raises:
        UsageError: it is outside 0.001 to 1000 frames per second.
    """
    if not _LEAST_FPS <= fps <= _MOST_FPS:
        raise UsageError(f"{option} {fps:g}: give frames per second, {_LEAST_FPS:g} to {_MOST_FPS:g}")


def salema_version() -> str:
    """Returns this version, or `checkout` if the packages are imported but not installed."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - takes 10 ms of every start

    try:
        return version("salema")
    except PackageNotFoundError:
        return "checkout"


@dataclass(frozen=True)
class StateSpec:
    """One recurrent state; it is float32 in every precision.

    The graph's tensors are `<name>_in` and `<name>_out`, both `[N, *shape_chw]`.
    """

    name: str
    shape_chw: tuple[int, int, int]


@dataclass(frozen=True)
class SplitSpec:
    """What runs between the encoder and the decoder of a split model, besides the EMA.

    Attributes:
        residual: the encoder's output that is added to the state: `entered`, the averaged layer's input; `fresh`, its
            output; None for nothing.
        relu: whether a ReLU follows the averaged layer.
        rectified: whether the state is the value after that ReLU, not before it.
    """

    residual: str | None
    relu: bool
    rectified: bool = False

    def __post_init__(self) -> None:
        if self.residual not in {None, "entered", "fresh"} or (self.rectified and (self.residual or not self.relu)):
            raise ValueError("what lies between the parts doesn't go together")


@dataclass(frozen=True)
class ModelSpec:
    """The facts of one exported single-step graph.

    Attributes:
        architecture: the published name, such as `SalEMA30R`.
        height: rows of `frame` and `saliency`, a multiple of 16.
        width: columns of `frame` and `saliency`, a multiple of 16.
        batch: how many independent streams a step takes, or None for any number.
        precision: `fp32`, `fp16` or `int8`, of weights and arithmetic; states and maps are always float32. INT8 is the
            precision of the convolutions only.
        states: the recurrent states in the graph's order; empty for SalGAN.
        coefficient: weight of the new frame in the EMA, in (0, 1]; None if there is no EMA (and no `mix` input).
        coefficient_source: how the coefficient was read, in words.
        weights: name of the checkpoint.
        weights_sha256: hash of the checkpoint file; for seeded weights, hash of the tensors.
        trained: False for seeded weights, whose maps mean nothing.
        rewrites: names of the graph rewrites that were applied.
        salema_version: version that wrote the file.
        part: `model` for a whole step. A split model has an `encoder` (all layers up to and with the averaged one) and
            a `decoder` (the layers after it); our own code computes the EMA between them.
        split: what lies between the parts; None for a whole step.
        plain_recurrence: whether an EMA in the encoder follows the plain rule. In the published code's rule ReLUs
            overwrite states.
        reference_fps: frames per second at which the weights were trained; the time between frames is counted in it.
        float_layers: convolutions that an INT8 model leaves in float32, by published name (`salgan.60`).
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
    part: str = "model"
    split: SplitSpec | None = None
    plain_recurrence: bool = False
    reference_fps: float = DEFAULT_FPS
    float_layers: tuple[str, ...] = ()
    spec_version: int = SPEC_VERSION

    def __post_init__(self) -> None:
        sizes = (self.height, self.width, *(n for state in self.states for n in state.shape_chw))
        if not all(isinstance(n, int) and n > 0 for n in (*sizes, 1 if self.batch is None else self.batch)):
            raise ValueError("sizes must be whole numbers above 0")
        if self.coefficient is not None and not 0 < self.coefficient <= 1:
            raise ValueError("the coefficient must lie in (0, 1]")
        if not 0 < self.reference_fps < math.inf:
            raise ValueError("the reference rate must be above 0")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision} is none of {', '.join(PRECISIONS)}")
        if self.part not in PARTS or (self.split is None) != (self.part == "model"):
            raise ValueError("parts and split don't go together")

    @property
    def whole(self) -> ModelSpec:
        """The record of the whole step, also where this is the record of a part."""
        return replace(self, part="model", split=None)

    @property
    def tensor_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shape of every input and output by name; the first size is None if the batch is free."""
        n = self.batch
        shapes: dict[str, tuple[int | None, ...]] = {
            "frame": (n, self.height, self.width, 3),
            "saliency": (n, 1, self.height, self.width),
        }
        for state in self.states:
            for name in (f"{state.name}_in", f"{state.name}_out", "fresh", "entered", "averaged"):
                shapes[name] = (n, *state.shape_chw)
        shapes["mix"] = (n,)
        return {name: shapes[name] for name in (*self.input_names, *self.output_names)}

    def tensor_dtype(self, name: str) -> str:
        """NumPy's name of a tensor's type. Tensors between the parts have the model's precision."""
        if name in {"fresh", "entered", "averaged"}:
            return "float16" if self.precision == "fp16" else "float32"
        return "uint8" if name == "frame" else "float32"

    @property
    def input_names(self) -> tuple[str, ...]:
        """The graph's inputs in order: `frame`, the states, and `mix` if there is an EMA."""
        if self.part != "model":
            return ("frame",) if self.part == "encoder" else ("averaged",)
        mix = () if self.coefficient is None else ("mix",)
        return ("frame", *(f"{state.name}_in" for state in self.states), *mix)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The graph's outputs in order: `saliency`, then the states."""
        if self.split is not None and self.part == "encoder":
            return ("fresh", "entered") if self.split.residual == "entered" else ("fresh",)
        return ("saliency", *(f"{state.name}_out" for state in self.states if self.part == "model"))

    def to_json(self) -> str:
        """Returns the record as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, where: str) -> ModelSpec:
        """Reads what `to_json` wrote; `where` names the file in messages.

        Raises:
            NewerModelError: a newer version wrote the record.
            ModelError: the record is incomplete or damaged.
        """
        try:
            record: dict[str, Any] = json.loads(text)
            spec_version = int(record["spec_version"])
            added = _since(spec_version, record)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise ModelError(f"{where}: its salema metadata can't be read; export the model again") from None
        if spec_version > SPEC_VERSION:
            raise NewerModelError(
                f"{where}: written by salema {record.get('salema_version', '?')} in model format {spec_version}, and"
                f" this version reads up to {SPEC_VERSION}; upgrade with: pip install -U salema"
            )
        record |= added
        expected = {field.name for field in fields(cls)}
        if expected != set(record):
            odd = ", ".join(sorted(expected ^ set(record)))
            raise ModelError(f"{where}: its salema metadata lacks or has unknown entries ({odd}); export it again")
        try:
            states = tuple(StateSpec(state["name"], tuple(state["shape_chw"])) for state in record["states"])
            split = record["split"] and SplitSpec(**record["split"])
            names = {key: tuple(record[key]) for key in ("rewrites", "float_layers")}
            return cls(**{**record, **names, "states": states, "split": split})
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{where}: its salema metadata is damaged ({reason(error)}); export it again") from error


def _since(spec_version: int, record: dict[str, Any]) -> dict[str, Any]:
    """Returns the entries that a record of an older format lacks."""
    added: dict[str, Any] = {}
    if spec_version < 2:  # noqa: PLR2004 - before there were split models
        added |= {"part": "model", "split": None}
    if spec_version < 3:  # noqa: PLR2004 - before there was INT8
        added |= {"float_layers": []}
    if spec_version < SPEC_VERSION:  # before, all followed the plain rule in the encoder too
        added |= {"plain_recurrence": True, "reference_fps": DEFAULT_FPS, "spec_version": SPEC_VERSION}
        if split := record.get("split"):
            added["split"] = {**split, "residual": "entered" if split["residual"] else None, "rectified": False}
    return added


def check_parts(encoder: ModelSpec, decoder: ModelSpec) -> None:
    """Refuses two parts that are not encoder and decoder of one model.

    Raises:
        ModelError: they belong to different exports, or one has the other's place.
    """
    if (encoder.part, decoder.part) != ("encoder", "decoder") or encoder.whole != decoder.whole:
        raise ModelError("encoder and decoder are not of one export; export them again with --split")


def read_facts(kind: type[Facts], file: Path, again: str) -> Facts:
    """Reads a JSON file of facts beside a model; `again` says in messages how to make it again.

    Of the dataclass `kind` the field `spec` is a `ModelSpec`, and the last field the version of the record.

    Raises:
        NewerModelError: a newer version wrote the model, so making the file again does not help.
        ModelError: the record is damaged, or of another version.
    """
    try:
        record = json.loads(file.read_text("utf-8", errors="replace"))
        if isinstance(record, dict) and "spec" in record:  # first, so that a newer model raises NewerModelError
            spec = ModelSpec.from_json(json.dumps(record["spec"]), str(file))
        version = fields(kind)[-1]
        if set(record) != {field.name for field in fields(kind)} or record[version.name] != version.default:
            raise ValueError("it is of another version of salema")  # noqa: TRY301 - handled below with all other faults
        tuples = {name: tuple(value) for name, value in record.items() if isinstance(value, list)}
        return kind(**{**record, **tuples, "spec": spec})
    except NewerModelError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{file}: can't be used ({reason(error)}); {again}") from error
