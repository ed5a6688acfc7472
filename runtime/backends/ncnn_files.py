"""A model for ncnn: `model.ncnn.param` and `model.ncnn.bin`, and their facts in `model.ncnn.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from salema.runtime.errors import ModelError
from salema.runtime.files.whole_files import sha256_of
from salema.runtime.model_folder import NCNN_AGAIN, NcnnFiles
from salema.runtime.spec import ModelSpec, read_facts

RECORD_VERSION = 2  # files of version 1 gave layers no sizes, and ran slowly


@dataclass(frozen=True)
class NcnnInfo:
    """The facts of one model for ncnn.

    Attributes:
        spec: the model's own record, as in the ONNX file.
        onnx_sha256: hash of the ONNX file that was written with it.
        param_sha256: hash of the layers' file.
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


def describe(files: NcnnFiles, spec: ModelSpec) -> NcnnInfo:
    """Returns the facts of files that have just been written."""
    return NcnnInfo(spec, sha256_of(files.onnx), sha256_of(files.param), sha256_of(files.weights))


def read_info(files: NcnnFiles) -> NcnnInfo:
    """Reads the facts, and checks that the files belong together and to the ONNX file beside them, if there is one.

    Raises:
        ModelError: they don't belong together, or the facts are damaged.
    """
    info = read_facts(NcnnInfo, files.facts, NCNN_AGAIN)
    for file, expected in ((files.param, info.param_sha256), (files.weights, info.bin_sha256)):
        if sha256_of(file) != expected:
            raise ModelError(f"{file}: not the file that {files.facts.name} describes; {NCNN_AGAIN} -o {file.parent}")
    if files.onnx.is_file() and sha256_of(files.onnx) != info.onnx_sha256:
        folder = files.param.parent
        raise ModelError(f"{files.param}: {files.onnx.name} beside it is another by now; {NCNN_AGAIN} -o {folder}")
    return info
