import pytest

from salema.export.engine.to_engine import build_engine
from salema.export.options import EngineOptions
from salema.runtime.gpu.trt_library import TENSORRT_RTX


@pytest.fixture
def folder(model, tmp_path):
    """A copy of a model's folder, to write engines into."""
    (tmp_path / "model.onnx").write_bytes((model / "model.onnx").read_bytes())
    return tmp_path


@pytest.fixture
def copied(exported, tmp_path):
    def copy(**options):
        (tmp_path / "model.onnx").write_bytes((exported(**options) / "model.onnx").read_bytes())
        return tmp_path

    return copy


@pytest.fixture
def build():
    """Builds the engine of the model in a folder with TensorRT-RTX for sm89, which needs no GPU."""

    def run(folder, **options):
        options = EngineOptions(**{"targets": ("sm89",), **options})
        return build_engine(folder / "model.onnx", TENSORRT_RTX, options, lambda _: None)

    return run
