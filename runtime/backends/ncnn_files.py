"""A model for ncnn: `model.ncnn.param`, `model.ncnn.bin`, and what must be known of them in `model.ncnn.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from salema.runtime.errors import ModelError, reason
from salema.runtime.files.whole_files import sha256_of
from salema.runtime.model_folder import NCNN_AGAIN
from salema.runtime.spec import ModelSpec

if TYPE_CHECKING:
    from salema.runtime.model_folder import NcnnFiles

RECORD_VERSION = 2  # 1 gave layers no sizes, and ran slowly


@dataclass(frozen=True)
class NcnnInfo:
    """The facts of one model for ncnn.

    Attributes:
        spec: the model's own record, as in the ONNX file.
        onnx_sha256: hash of the ONNX file that was written with it.
        param_sha256: hash of the layers.
        bin_sha256: hash of the weights' file.
        record_version: version of this record.
    """

    spec: ModelSpec
    onnx_sha256: str
    param_sha256: str
    bin_sha256: str
    record_version: int = RECORD_VERSION

    def to_json(self) -> str:
        """Returns the record as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str, where: str) -> NcnnInfo:
        """Reads what `to_json` wrote; `where` names the file in messages.

        Raises:
            NewerModelError: the model is of a newer version.
            ModelError: the record is damaged, or of another version.
        """
        try:
            record: dict[str, Any] = json.loads(text)
            if isinstance(record, dict) and "spec" in record:  # first: a newer one is to be told as such
                spec = ModelSpec.from_json(json.dumps(record["spec"]), where)
            if set(record) != {field.name for field in fields(cls)} or record["record_version"] != RECORD_VERSION:
                raise ValueError("it is of another version of salema")  # noqa: TRY301 - told below, as all else
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"{where}: can't be used ({reason(error)}); {NCNN_AGAIN}") from error
        return cls(**{**record, "spec": spec})


def describe(files: NcnnFiles, spec: ModelSpec) -> NcnnInfo:
    """Returns the facts of files that have just been written."""
    return NcnnInfo(spec, sha256_of(files.onnx), sha256_of(files.param), sha256_of(files.weights))


def read_info(files: NcnnFiles) -> NcnnInfo:
    """Reads the facts, and checks that the files belong together and to the ONNX file beside them, if there is one.

    Raises:
        ModelError: they don't, or the facts are damaged.
    """
    info = NcnnInfo.from_json(files.facts.read_text("utf-8", errors="replace"), str(files.facts))
    for file, expected in ((files.param, info.param_sha256), (files.weights, info.bin_sha256)):
        if sha256_of(file) != expected:
            raise ModelError(f"{file}: not the file that {files.facts.name} describes; {NCNN_AGAIN} -o {file.parent}")
    if files.onnx.is_file() and sha256_of(files.onnx) != info.onnx_sha256:
        folder = files.param.parent
        raise ModelError(f"{files.param}: {files.onnx.name} beside it is another by now; {NCNN_AGAIN} -o {folder}")
    return info
