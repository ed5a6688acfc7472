"""What made an output: a JSON record beside it, for later runs and for scores.

In a folder of maps the record is `salema.json`; beside a file it is the file's name with `.salema.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salema.runtime.errors import ModelError
from salema.runtime.files.many_requests import at_a_time, each
from salema.runtime.files.remote_path import as_path, reading
from salema.runtime.files.whole_files import sha256_of, write_bytes
from salema.runtime.spec import salema_version
from salema.runtime.wording import counted

if TYPE_CHECKING:
    from salema.runtime.sources.source import Source
    from salema.runtime.stream import SaliencyStream

NAME = "salema.json"
FORMAT = 1
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 20
_FACTS = (
    *("architecture", "precision", "coefficient", "plain_recurrence", "reference_fps", "height", "width"),
    *("weights", "weights_sha256"),
)


@dataclass(frozen=True)
class Provenance:
    """What made an output.

    `model` and `source` are described at `model_facts` and `source_facts`; `options` are those that change results, by
    name; `frames_expected` is None if unknown. `why_incomplete` is `interrupted`, or what went wrong.
    """

    salema_version: str
    model: dict[str, Any]
    backend: str
    options: dict[str, Any]
    source: dict[str, Any]
    frames: int
    frames_expected: int | None
    complete: bool
    why_incomplete: str | None = None
    format: int = FORMAT

    def differs_from(self, now: Provenance) -> str:
        """Returns in words what is different now; empty if nothing is."""
        differences = [] if self.complete else ["it was not finished"]
        if self.salema_version != now.salema_version:
            differences.append(f"salema was {self.salema_version}, now {now.salema_version}")
        for before, after in ((self.model, now.model), (self.options, now.options), (self.source, now.source)):
            differences += [
                f"{key.replace('_', ' ')} was {_short(before.get(key))}, now {_short(value)}"
                for key, value in after.items()
                if before.get(key) != value
            ]
        return "; ".join(differences)

    @property
    def title(self) -> str:
        """The model, its backend and the program, in words."""
        model = self.model
        coefficient = "" if model.get("coefficient") is None else f", coefficient {model['coefficient']:.6g}"
        network = f"{model.get('weights')}, {model.get('architecture')} {model.get('precision')}{coefficient}"
        options = self.options
        unusual = (key for key, usual in _USUAL.items() if options.get(key, usual) != usual)
        differing = [f"{key.replace('_', ' ')} {options[key]}" for key in unusual]
        return ", ".join([network, *differing, self.backend, f"salema {self.salema_version}"])


def title_of(stream: SaliencyStream) -> str:
    """Returns the `title` of the maps that a running model makes."""
    facts = {name: getattr(stream.spec, name) for name in _FACTS}
    return Provenance(salema_version(), facts, stream.session.runs_on, {}, {}, 0, None, complete=True).title


def makers(folders: Sequence[Path]) -> tuple[str, ...]:
    """Says what made the maps in some folders, one video each; empty if no folder has a record."""
    records = list(each(read_provenance, folders, at_a_time(folders[0]) if folders else 1))
    if not any(records):
        return ()
    unknown, unfinished = "an unknown program", ", not finished"
    titles = Counter(
        unknown if made is None else f"{made.title}{'' if made.complete else unfinished}" for made in records
    )
    return tuple(f"the maps of {counted(count, 'video')} were made by {title}" for title, count in titles.items())


_USUAL = {"normalise": "frame", "reset_on_cut": False, "time_aware": False, "stride": 1, "start_s": 0}


def _short(value: object) -> str:
    if isinstance(value, str) and len(value) == len(hashlib.sha256().hexdigest()):
        return f"{value[:8]}..."
    return "unknown" if value is None else str(value)


def place_beside(output: Path) -> Path:
    """Returns the record's path for a file or a folder of maps."""
    return output / NAME if output.is_dir() else output.with_name(f"{output.name}.{NAME}")


def write_provenance(output: Path, made: Provenance) -> None:
    """Writes the record beside an output, whole or not at all.

    Raises:
        OutputError: it can't be written.
    """
    write_bytes(place_beside(output), (json.dumps(asdict(made), indent=1) + "\n").encode())


def remove_provenance(output: Path) -> None:
    """Removes the record of an output that is about to change."""
    with suppress(OSError):  # the output can't be changed there either, and its own error will say so
        place_beside(output).unlink(missing_ok=True)


def read_provenance(output: Path) -> Provenance | None:
    """Returns what made an output; None if there is no record, or none in a known form."""
    try:
        place = place_beside(output)
        if not place.is_file() or place.stat().st_size > _SAMPLE_BYTES:
            return None
        record = json.loads(place.read_text("utf-8"))
        if set(record) != {field.name for field in fields(Provenance)} or record["format"] != FORMAT:
            return None
        made = Provenance(**record)
        if not all(isinstance(part, dict) for part in (made.model, made.options, made.source)):
            return None
        _ = made.title
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return made


def model_facts(stream: SaliencyStream) -> dict[str, Any]:
    """Returns what decides a model's maps: its facts, what it computes in, and the hash of its files.

    The files are the folder's ONNX and ncnn files. Engines differ from build to build, and are checked against these
    files anyway. `files_sha256` is None if the model was not opened by `load`.
    """
    facts = {name: getattr(stream.spec, name) for name in _FACTS}
    return {**facts, "computes_in": stream.session.computes_in, "files_sha256": stream.model and _hash_of(stream.model)}


def _hash_of(model: Path) -> str | None:
    from salema.runtime.model_folder import look_up  # noqa: PLC0415 - `salema-eval` opens no model to score files

    try:
        files = look_up(model).sources or (model,)
        return _hash_of_all(tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files))
    except (ModelError, OSError):  # removed since it was loaded
        return None


@lru_cache(maxsize=16)
def _hash_of_all(files: tuple[tuple[Path, int, int], ...]) -> str:
    return hashlib.sha256("".join(sha256_of(path) for path, *_ in files).encode()).hexdigest()


def source_facts(source: Source) -> dict[str, Any]:
    """Returns facts that tell one source from another. None stands for what can't be read any more.

    For images: their number, and a hash of their names and sizes. For a video: its size, and a hash of up to 64 MiB of
    it, in 64 pieces from start to end. For other sources: the name.
    """
    if source.kind == "images":
        return frames_facts(source.images)
    if source.kind != "video":
        return {"kind": source.kind, "name": source.shown}
    return video_facts(as_path(source.given))


def video_facts(path: Path) -> dict[str, Any]:
    """See `source_facts`."""
    size = digest = None
    with suppress(OSError):
        size = path.stat().st_size
        digest = _sampled(path, size)
    return {"kind": "video", "name": path.name, "bytes": size, "sha256_of_samples": digest}


def frames_facts(images: Sequence[Path]) -> dict[str, Any]:
    """See `source_facts`."""
    digest: str | None = None
    with suppress(OSError):
        sizes = "".join(f"{path.name}\0{path.stat().st_size}\0" for path in images)
        digest = hashlib.sha256(sizes.encode("utf-8", "surrogateescape")).hexdigest()
    return {"kind": "images", "images": len(images), "sha256_of_names_and_sizes": digest}


def _sampled(path: Path, size: int) -> str:
    """Hashes a file of up to 64 MiB whole, and of a larger one evenly spaced pieces of 64 MiB in all."""
    digest = hashlib.sha256()
    step = max((size - _SAMPLE_BYTES) / (_SAMPLES - 1), _SAMPLE_BYTES)
    starts = (round(index * step) for index in range(_SAMPLES))
    with reading(path) as read:
        for start in starts:
            if start < size:
                digest.update(read(start, min(start + _SAMPLE_BYTES, size)))
    return digest.hexdigest()
